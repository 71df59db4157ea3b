"""The command of `detector/commands/train_classifier.py`; `python tools/train_classifier.py --help`."""

from detector.commands import cli, train_classifier

if __name__ == "__main__":
    cli.run(train_classifier.main)
