"""The command of `detector/commands/model_info.py`; `python tools/model_info.py --help`."""

from detector.commands import cli, model_info

if __name__ == "__main__":
    cli.run(model_info.main)
