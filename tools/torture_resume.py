"""The command of `detector/commands/torture_resume.py`; `python tools/torture_resume.py --help`."""

from detector.commands import cli, torture_resume

if __name__ == "__main__":
    cli.run(torture_resume.main)
