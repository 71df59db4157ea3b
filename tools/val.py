"""The command of `detector/commands/val.py`; `python tools/val.py --help`."""

from detector.commands import cli, val

if __name__ == "__main__":
    cli.run(val.main)
