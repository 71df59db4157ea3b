"""What all commands share: options, error messages and exit status."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from detector.command_names import name_commands, runs_as_program
from detector.errors import ProcessLost, UserError, explain, replace_text
from detector.weights.darknet import DarknetOptions

# option -> the key that it sets, and the placeholder of its value
FLAGS = {
    "batch": ("train.batch_size", "IMAGES"),
    "epochs": ("train.epochs", "N"),
    "device": ("train.device", "DEVICE"),
    "workers": ("data.workers", "N"),
}

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class ParserCaptured(Exception):
    """Ends a command that `capture_parser` runs; its argument is the parser."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports its errors as `UserError`, in one line.

    Attributes:
        capturing: whether parsing raises `ParserCaptured`.
    """

    capturing = False

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As argparse's."""
        if Parser.capturing:
            raise ParserCaptured(self)
        return super().parse_args(*args, **kwargs)

    def parse_intermixed_args(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As argparse's."""
        if Parser.capturing:
            raise ParserCaptured(self)
        return super().parse_intermixed_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Ends the command.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message}; see {self.prog} --help")


def capture_parser(main: Callable[[], None]) -> Parser:
    """The argument parser of a command, which is run up to the point where it parses its words."""
    Parser.capturing = True
    try:
        main()
    except ParserCaptured as captured:
        return captured.args[0]
    finally:
        Parser.capturing = False
    raise AssertionError(f"{main.__module__} parses no arguments")


def make_parser(description: str, example: str) -> Parser:
    """Makes an argument parser whose help ends with an example."""
    return Parser(
        prog=sys.argv[0] if runs_as_program() else None,
        description=description,
        epilog=f"example:\n  {name_commands(example)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_darknet_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how to read a darknet file; `read_darknet_options` collects them."""
    group = parser.add_argument_group("for a darknet file (.weights)")
    group.add_argument("--order", help="order of its convolutions, pacsp or csp; default: detected")
    group.add_argument(
        "--decoder",
        choices=("sigmoid", "darknet", "exp"),
        help="box sizes: sigmoid is (2s)^2, exp is exp(raw), darknet is what darknet's cfg says",
    )
    group.add_argument(
        "--bn-eps", type=float, help="BatchNorm eps; darknet uses 1e-5, PyTorch projects 1e-4"
    )
    group.add_argument(
        "--partial", action="store_true", help="accept a file with only the first layers"
    )
    group.add_argument("--names", metavar="FILE", help="text file with one class name per line")


def read_darknet_options(args: argparse.Namespace) -> DarknetOptions:
    """The values of the options that `add_darknet_options` added."""
    return DarknetOptions(
        order=args.order,
        decoder=args.decoder,
        bn_eps=args.bn_eps,
        partial=args.partial,
        names=None if args.names is None else Path(args.names),
    )


def run(main: Callable[[], None]) -> None:
    """Runs a command; a user error becomes one line on stderr and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file shows progress at once
    try:
        main()
    except UserError as error:
        _print_error(error)
        raise SystemExit(EXIT_USER_ERROR) from None
    except RuntimeError as error:
        explained = explain(error)
        if explained is None:
            raise
        _print_error(explained)
        raise SystemExit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # whatever reads our output, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(error: UserError) -> None:
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    report = os.environ.get(
        "TORCHELASTIC_ERROR_FILE"
    )  # torchrun reads its report of the first failure there
    if report and not isinstance(error, ProcessLost):
        about = {"message": str(error), "timestamp": int(time.time())}
        Path(report).write_text(json.dumps(about), encoding="utf-8")


def add_short_flags(parser: argparse.ArgumentParser) -> None:
    """Adds options that set one config key each; `collect_overrides` reads them."""
    group = parser.add_argument_group("shortcuts for key=value")
    for flag, (key, metavar) in FLAGS.items():
        group.add_argument(f"--{flag}", metavar=metavar, help=f"{key}={metavar}")


def collect_overrides(args: argparse.Namespace) -> list[str]:
    """The `key=value` words of a command line, followed by those of its shortcuts.

    Raises:
        UserError: an option and a word set the same key.
    """
    words = list(args.overrides)
    given = {word.split("=", 1)[0] for word in words}
    for flag, (key, _) in FLAGS.items():
        value = getattr(args, flag)
        if value is None:
            continue
        if key in given:
            raise UserError(f"--{flag} and {key}= set the same thing; give one of them")
        words.append(f"{key}={value}")
    return words


def write_json(path: Path, content: Any) -> None:
    """Writes plain values for a script to read.

    Raises:
        UserError: the file cannot be written.
    """
    replace_text(path, f"{json.dumps(content, indent=1)}\n")


def silence() -> None:
    """Discards what this process prints; only rank 0 prints."""
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
