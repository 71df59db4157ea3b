"""The command of `detector/commands/show_batch.py`; `python tools/show_batch.py --help`."""

from detector.commands import cli, show_batch

if __name__ == "__main__":
    cli.run(show_batch.main)
