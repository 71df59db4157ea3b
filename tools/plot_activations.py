"""The command of `detector/commands/plot_activations.py`; `python tools/plot_activations.py --help`."""

from detector.commands import cli, plot_activations

if __name__ == "__main__":
    cli.run(plot_activations.main)
