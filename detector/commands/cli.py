"""What all commands share: options, error messages and exit status."""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from detector.errors import ProcessLost, UserError, explain
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


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all other user errors."""

    def error(self, message: str) -> NoReturn:
        """Ends the command.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message}; see {self.prog} --help")


def parser(description: str, example: str) -> Parser:
    """An argument parser whose help ends with an example."""
    return Parser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_darknet_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how to read a darknet file; `read_darknet_options` collects them."""
    group = parser.add_argument_group("for a darknet file (.weights)")
    group.add_argument(
        "--order", help="order of its convolutions, pacsp or csp; default: from its content"
    )
    group.add_argument(
        "--decoder",
        choices=("sigmoid", "darknet", "exp"),
        help="decoding of box sizes: (2s)^2, as in darknet's cfg of the network, or exp",
    )
    group.add_argument(
        "--bn-eps", type=float, help="eps of BatchNorm; darknet has 1e-5, PyTorch projects 1e-4"
    )
    group.add_argument(
        "--partial", action="store_true", help="the file may hold the first layers only"
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
    """Runs a command; a user error ends in one line on stderr and exit status 2."""
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
    except BrokenPipeError:  # the reader of our output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(error: UserError) -> None:
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # torchrun reports the first failure from it
    if report and not isinstance(error, ProcessLost):
        about = {"message": str(error), "timestamp": int(time.time())}
        Path(report).write_text(json.dumps(about), encoding="utf-8")


def add_short_flags(parser: argparse.ArgumentParser) -> None:
    """Adds options that set a key each; `collect_overrides` reads them."""
    group = parser.add_argument_group("short for key=value")
    for flag, (key, metavar) in FLAGS.items():
        group.add_argument(f"--{flag}", metavar=metavar, help=f"{key}={metavar}")


def collect_overrides(args: argparse.Namespace) -> list[str]:
    """The `key=value` words of a command line, those of its short options at the end.

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


def silence() -> None:
    """Discards what this process prints: the main rank prints for all."""
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
