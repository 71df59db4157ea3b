"""The command of `detector/commands/check_data.py`; `python tools/check_data.py --help`."""

from detector.commands import check_data, cli

if __name__ == "__main__":
    cli.run(check_data.main)
