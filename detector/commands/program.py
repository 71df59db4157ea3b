"""The program `detector`: runs the command that its first word names.

`detector --help` loads neither torch nor any command.
"""

import importlib
import importlib.metadata
import sys

from detector.command_names import COMMANDS, PROGRAM, find_command
from detector.errors import UserError
from detector.registry import nearest

HELP = """usage: {program} COMMAND ...

Train, evaluate, study and use object detectors of the YOLOv4 family.

{commands}

{program} COMMAND --help   options and an example of a command
{program} --version        version of the package

In a checkout, `python tools/NAME.py` runs the same commands."""


def main() -> None:
    """Runs `detector COMMAND ...`; the exit status is that of the command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(format_help())
        raise SystemExit(0 if words else 2)
    if words[0] == "--version":
        print(f"{PROGRAM} {importlib.metadata.version(PROGRAM)}")
        return
    command = find_command(words[0])
    if command is not None:
        sys.argv = [f"{PROGRAM} {command.name}", *words[1:]]
    # Not before: it loads torch, which takes seconds.
    from detector.commands import cli

    if command is None:
        cli.run(lambda: reject_command(words[0]))
    else:
        cli.run(importlib.import_module(f"detector.commands.{command.module}").main)


def format_help() -> str:
    """The list of the commands, each with its summary."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS]
    return HELP.format(program=PROGRAM, commands="\n".join(lines))


def reject_command(name: str) -> None:
    """Says that there is no such command.

    Raises:
        UserError: always; suggests the nearest name.
    """
    hint = nearest(name, [command.name for command in COMMANDS])
    raise UserError(f"{name}: no such command; {PROGRAM} --help lists them{hint}")
