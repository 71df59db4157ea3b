"""The command of `detector/commands/train.py`; `python tools/train.py --help`."""

from detector.commands import cli, train

if __name__ == "__main__":
    cli.run(train.main)
