"""What the commands do, as functions and objects: training runs, validation, previews."""
