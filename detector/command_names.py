"""The commands of the toolkit: their names, and how messages tell a user to run one."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / "tools"  # only a checkout has it
PROGRAM = "detector"


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand of `detector`.

    Attributes:
        name: as it is typed.
        module: in `detector.commands`; `tools/MODULE.py` runs the same.
        summary: one line for `detector --help`.
    """

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("train", "train", "train a detector, or resume a run"),
    Command("train-classifier", "train_classifier", "train a classifier; backbones for detectors"),
    Command("val", "val", "evaluate weights: COCO's AP, intervals, error analysis"),
    Command("detect", "detect", "detect objects in images"),
    Command("export", "export", "export weights to ONNX, torch.export or OpenVINO"),
    Command("serve", "serve", "serve a detector over HTTP, with a page to try it"),
    Command("check-data", "check_data", "check a data set: files, labels, splits, anchors"),
    Command("convert-data", "convert_data", "convert a data set to COCO json or YOLO txt"),
    Command("subset", "subset", "copy a few images of a data set to a new one"),
    Command("show-batch", "show_batch", "draw a training batch, a sample, each augmentation"),
    Command("anchors", "cluster_anchors", "find anchors for a data set"),
    Command("info", "model_info", "parameters, GFLOPs, shapes and strides of a network"),
    Command("weights", "get_weights", "list the published weights, or download one"),
    Command("convert-weights", "convert_weights", "convert darknet's .weights to .pt, or back"),
    Command("reproduce", "reproduce", "repeat the first batches of a run: bitwise equal?"),
    Command("ablate", "ablate", "change one component: paired seeds, intervals, a verdict"),
    Command("tune", "tune", "search for settings by Optuna; fresh runs for the best"),
    Command("compare-recipes", "compare_recipes", "compare recipes over seeds, as ablate does it"),
    Command(
        "landscape", "landscape", "draw the loss around trained weights; outputs of random nets"
    ),
    Command("plot-activations", "plot_activations", "plot activations and their derivatives"),
    Command("torture-resume", "torture_resume", "kill and resume a run; compare its weights"),
    Command("bench-infer", "bench_infer", "time inference: PyTorch, ONNX Runtime, OpenVINO"),
    Command("bench-mish", "bench_mish", "time Mish and BatchNorm + Mish beside torch's"),
    Command("bench-train", "bench_train", "time a training step, phase by phase"),
    Command("bench-loader", "bench_loader", "time the loader beside bare OpenCV calls"),
    Command("bench-eval", "bench_eval", "time the AP backends and the post-processing"),
    Command("completion", "completion", "print the completion script of a shell"),
)


def find_command(name: str) -> Command | None:
    """The command with this name or module name, with either of `-` and `_`; None without one."""
    wanted = name.replace("_", "-")
    for command in COMMANDS:
        if wanted in (command.name, command.module.replace("_", "-")):
            return command
    return None


def format_command(module: str, *words: str) -> str:
    """The command line that runs a command here, for a message: as the user runs commands.

    Args:
        module: of the command, such as `check_data`.
        words: its arguments; quoted where the shell needs it.

    Returns:
        `detector check-data mine.yaml`, or `python tools/check_data.py mine.yaml` in a checkout whose
        user did not type `detector`.
    """
    command = find_command(module)
    assert command is not None, f"{module} is not in COMMANDS"
    if runs_as_program() or not TOOLS.is_dir():
        start = f"{PROGRAM} {command.name}"
    else:
        start = f"python tools/{command.module}.py"
    return f"{start} {shlex.join(words)}" if words else start


def name_commands(text: str) -> str:
    """A text with each `python tools/NAME.py` as `format_command` writes it."""
    return re.sub(r"python tools/(\w+)\.py", lambda match: format_command(match[1]), text)


def runs_as_program() -> bool:
    """Whether the user typed `detector NAME` (or `python -m detector NAME`)."""
    return sys.argv[0].startswith(f"{PROGRAM} ")  # set by detector.commands.program
