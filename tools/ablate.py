"""The command of `detector/commands/ablate.py`; `python tools/ablate.py --help`."""

from detector.commands import ablate, cli

if __name__ == "__main__":
    cli.run(ablate.main)
