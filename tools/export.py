"""The command of `detector/commands/export.py`; `python tools/export.py --help`."""

from detector.commands import cli, export

if __name__ == "__main__":
    cli.run(export.main)
