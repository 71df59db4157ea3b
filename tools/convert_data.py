"""The command of `detector/commands/convert_data.py`; `python tools/convert_data.py --help`."""

from detector.commands import cli, convert_data

if __name__ == "__main__":
    cli.run(convert_data.main)
