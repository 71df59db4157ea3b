"""The command of `detector/commands/convert_weights.py`; `python tools/convert_weights.py --help`."""

from detector.commands import cli, convert_weights

if __name__ == "__main__":
    cli.run(convert_weights.main)
