"""The command of `detector/commands/tune.py`; `python tools/tune.py --help`."""

from detector.commands import cli, tune

if __name__ == "__main__":
    cli.run(tune.main)
