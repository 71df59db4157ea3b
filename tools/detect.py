"""The command of `detector/commands/detect.py`; `python tools/detect.py --help`."""

from detector.commands import cli, detect

if __name__ == "__main__":
    cli.run(detect.main)
