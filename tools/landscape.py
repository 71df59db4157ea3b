"""The command of `detector/commands/landscape.py`; `python tools/landscape.py --help`."""

from detector.commands import cli, landscape

if __name__ == "__main__":
    cli.run(landscape.main)
