"""Two processes train as one does on the joined batch: a step in float64 to 1e-12.

With a large eps in BatchNorm: over the few cells of so small maps it otherwise makes a difference in the
16th digit a thousand times larger in every step, in one process as in two.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from detector import build
from detector.build import training
from detector.commands import cli
from detector.config import load_config
from detector.data.digits.generate import make_digits
from detector.engine import ModelEMA, ProcessGroup
from detector.errors import UserError
from tests.ranks import meet, run_two

WORDS = [
    *("data.size=64", "data.workers=0", "train.precision=fp32", "train.threads=1"),
    *("train.lr=0.01", "train.device=cpu", "train.warmup_epochs=0", "model.activation=gelu"),
    "model.bn_eps=0.1",
]
# 7 images. In the second case the last batch of an epoch has one: the second process then has none
CASES = {
    "one step": (["train.epochs=1", "train.batch_size=7", "train.nominal_batch=7"], 1e-12),
    # each in two parts, one of which has a single image; BatchNorms as they are, since they see parts
    "parts": (
        [
            *("train.epochs=2", "train.batch_size=7", "train.nominal_batch=7"),
            "train.freeze=['*.norm']",
        ],
        1e-11,
    ),
    # the decoded images in a memory that both share
    "epochs": (
        [
            *("train.epochs=2", "train.batch_size=3", "train.nominal_batch=6"),
            "data.tile_buffer=16",
        ],
        1e-11,
    ),
}


class InDouble(nn.Module):
    """A model that computes in float64, on images that come in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()
        self.anchors, self.strides = model.anchors.float(), model.strides
        self.decoder = model.decoder

    def forward(self, images: Tensor) -> list[Tensor]:
        raw = self.model(images.double())
        return raw if self.training else [level.float() for level in raw]


def train(folder: Path, process_group: ProcessGroup, case: str) -> dict[str, object]:
    """A run -> weights, statistics, gradients, losses and AP."""
    config = load_config("yolov4-pacsp-n-mish", [*WORDS, *CASES[case][0]], data=f"{folder}/d.yaml")
    hardware = build.build_hardware(config)
    data = build.build_data(config)
    store, lines = build.build_image_store(config, data.train.reader, process_group)
    assert len(lines) == (case == "epochs")
    data = data.with_store(store)
    evaluator = build.build_evaluator(config, data.val, hardware, process_group)
    real = training.build_model
    training.build_model = lambda *arguments: InDouble(real(*arguments))
    try:
        trainer = build.build_trainer(config, data, evaluator, hardware, None, process_group)
    finally:
        training.build_model = real
    assert isinstance(trainer.model, InDouble)
    assert isinstance(trainer.ema, ModelEMA)
    if case == "parts" and process_group.world_size > 1:
        trainer.progress.chunks = 2
    trainer.run()
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.progress.history]
    momentum = trainer.optimizer.state_dict()["state"]
    return {
        "weights": trainer.model.state_dict(),
        "momentum": {str(n): each["momentum_buffer"] for n, each in momentum.items()},
        "rows": rows,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    make_digits(folder / "digits", 7, 5)
    (folder / "d.yaml").write_text("format: coco\nroot: digits\nmirrors: false\n")
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, dict[str, Any]]]:
    """What each of two processes found: case -> what `train` returns."""
    return run_two("tests.test_distributed", folder)


def test_torchrun_is_told_the_first_failure_only(tmp_path, monkeypatch, capsys):
    """Not that of a process that lost another one: torchrun would take the earlier of the two."""
    report = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    lost = ProcessGroup(1, 2).explain_error(RuntimeError("[gloo] Connection closed by peer"))
    for error, told in ((lost, False), (UserError("the disk is full\nmake room"), True)):

        def fail(error=error):
            raise error

        with pytest.raises(SystemExit, match="2"):
            cli.run(fail)
        assert report.exists() == told
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(report))
    assert failure.message == "the disk is full\nmake room"
    assert failure.timestamp > 0
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(folder, two, case):
    alone, tolerance = train(folder, ProcessGroup(), case), CASES[case][1]
    for kind in ("weights", "momentum"):
        for name, value in alone[kind].items():
            scale = max(1.0, value.double().abs().max().item())
            for rank in range(2):
                difference = (two[rank][case][kind][name] - value).abs().max()
                assert difference <= tolerance * scale, (kind, rank, name)
    assert two[0][case]["rows"] == two[1][case]["rows"]
    for mine, theirs in zip(alone["rows"], two[0][case]["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=max(tolerance, 1e-9))


def main() -> None:
    """One of the two processes."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(folder, rank)
    process_group = ProcessGroup(rank, 2)
    torch.save({case: train(folder, process_group, case) for case in CASES}, folder / f"{rank}.pt")
    process_group.destroy()


if __name__ == "__main__":
    main()
