"""The command of `detector/commands/serve.py`; `python tools/serve.py --help`."""

from detector.commands import cli, serve

if __name__ == "__main__":
    cli.run(serve.main)
