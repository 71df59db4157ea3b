"""What every command shares: arguments, and how it ends."""

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

# flag -> the key that it stands for, and what its value is called
FLAGS = {
    "batch": ("train.batch_size", "IMAGES"),
    "epochs": ("train.epochs", "N"),
    "device": ("train.device", "DEVICE"),
    "workers": ("data.workers", "N"),
}

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """One that tells a mistake in one line, as all others are told."""

    def error(self, message: str) -> NoReturn:
        """Ends the command.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message}; {self.prog} --help has all there is")


def parser(description: str, example: str) -> Parser:
    """An argument parser whose help ends with an example."""
    return Parser(
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_darknet_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how to read a darknet file; `read_darknet_options` collects them."""
    group = parser.add_argument_group("of a darknet file (.weights)")
    group.add_argument("--order", help="of its convolutions: pacsp or csp; default: by its content")
    group.add_argument(
        "--decoder",
        choices=("sigmoid", "darknet", "exp"),
        help="how boxes are decoded: (2s)^2, as darknet's cfg of the network says, or plain exp",
    )
    group.add_argument("--bn-eps", type=float, help="of BatchNorm; darknet has 1e-5, PyTorch 1e-4")
    group.add_argument("--partial", action="store_true", help="it may hold the first layers only")
    group.add_argument("--names", metavar="FILE", help="class names, one a line")


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
    """Runs a command; what the user got wrong ends in one line on stderr and exit status 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # progress is seen in a log file, too
    try:
        main()
    except UserError as error:
        _tell(error)
        raise SystemExit(EXIT_USER_ERROR) from None
    except RuntimeError as error:
        explained = explain(error)
        if explained is None:
            raise
        _tell(explained)
        raise SystemExit(EXIT_USER_ERROR) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:  # the reader of our output (head, less) is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: UserError) -> None:
    print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # torchrun's: it names the first failure
    if report and not isinstance(error, ProcessLost):
        about = {"message": str(error), "timestamp": int(time.time())}
        Path(report).write_text(json.dumps(about), encoding="utf-8")


def add_short_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that stand for `key=value` words; `collect_overrides` reads them."""
    group = parser.add_argument_group("short for key=value")
    for flag, (key, metavar) in FLAGS.items():
        group.add_argument(f"--{flag}", metavar=metavar, help=f"{key}={metavar}")


def collect_overrides(args: argparse.Namespace) -> list[str]:
    """The key=value words of a command line, those of its short flags at the end.

    Raises:
        UserError: a flag and a word set the same key.
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
    """Nothing of what this process prints is shown: another one of the run speaks."""
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
