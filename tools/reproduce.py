"""The command of `detector/commands/reproduce.py`; `python tools/reproduce.py --help`."""

from detector.commands import cli, reproduce

if __name__ == "__main__":
    cli.run(reproduce.main)
