"""The command of `detector/commands/subset.py`; `python tools/subset.py --help`."""

from detector.commands import cli, subset

if __name__ == "__main__":
    cli.run(subset.main)
