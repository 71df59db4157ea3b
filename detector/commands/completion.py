"""Print the script with which a shell completes `detector`: its commands, options, choices and files."""

import argparse
import importlib

from detector.command_names import COMMANDS, PROGRAM
from detector.commands import cli
from detector.errors import UserError

# placeholder of an argument in --help -> what its value is
FILES = {"FILE", "YAML", "JSON", "JPG", "IMAGE", "DATA.yaml"}
FOLDERS = {"FOLDER"}


def main() -> None:
    parser = cli.make_parser(__doc__ or "", f"{PROGRAM} completion bash > ~/.{PROGRAM}-completion")
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    args = parser.parse_args()
    try:
        import shtab
    except ImportError:
        raise UserError("completion scripts need shtab: pip install shtab") from None
    program = collect_parsers()
    for each in list_arguments(program):
        placeholder = each.metavar if isinstance(each.metavar, str) else ""
        if placeholder in FILES | FOLDERS:
            each.complete = shtab.DIRECTORY if placeholder in FOLDERS else shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
    print(shtab.complete(program, args.shell))


def collect_parsers() -> argparse.ArgumentParser:
    """The argument parser of the program `detector`, with a subparser for each command."""
    program = argparse.ArgumentParser(PROGRAM)
    program.add_argument("--version", action="store_true", help="version of the package")
    subparsers = program.add_subparsers(title="commands")
    for command in COMMANDS:
        module = importlib.import_module(f"detector.commands.{command.module}")
        parser = cli.capture_parser(module.main)
        subparsers.add_parser(
            command.name,
            parents=[parser],
            add_help=False,
            help=command.summary,
            conflict_handler="resolve",
        )
    return program


def list_arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of a parser and of its subparsers."""
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found += list_arguments(inner)
    return found


if __name__ == "__main__":
    cli.run(main)
