"""The command of `detector/commands/completion.py`; `python tools/completion.py --help`."""

from detector.commands import cli, completion

if __name__ == "__main__":
    cli.run(completion.main)
