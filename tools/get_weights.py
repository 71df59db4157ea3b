"""The command of `detector/commands/get_weights.py`; `python tools/get_weights.py --help`."""

from detector.commands import cli, get_weights

if __name__ == "__main__":
    cli.run(get_weights.main)
