"""What a rank of `tests/test_distributed.py` trains and evaluates, on two ranks or alone.

As a program it is one of two ranks: `python -m tests.distributed_runs RANK FOLDER`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detector import build
from detector.build import training
from detector.config import load_config
from detector.decode import decode
from detector.engine import ModelEMA, ProcessGroup
from detector.structures import Candidates
from tests.models.networks import randomize_norms
from tests.ranks import meet

WORDS = [
    *("data.size=64", "data.workers=0", "train.precision=fp32", "train.threads=1"),
    *("train.lr=0.01", "train.device=cpu", "train.warmup_epochs=0", "model.activation=gelu"),
    "model.bn_eps=0.1",
]
# 7 images. In "epochs" the last batch of an epoch has one image: the second rank then has none.
# Name -> config words, tolerance.
TRAIN_CASES = {
    "one step": (["train.epochs=1", "train.batch_size=7", "train.nominal_batch=7"], 1e-12),
    # Each batch in two chunks, one of a single image; BatchNorms are frozen, since they see chunks.
    "chunks": (
        [
            *("train.epochs=2", "train.batch_size=7", "train.nominal_batch=7"),
            "train.freeze=['*.norm']",
        ],
        1e-11,
    ),
    # Decoded images are in memory that both ranks share.
    "epochs": (
        [
            *("train.epochs=2", "train.batch_size=3", "train.nominal_batch=6"),
            "data.tile_buffer=16",
            *("train.freeze=[model.backbone.stage1]", "train.freeze_epochs=1"),
        ],
        1e-11,
    ),
}
PLACEMENTS = ("letterbox", "rectangular")
COLUMNS = ("image", "label", "boxes_xywh", "score")


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

    def find_candidates(self, raw: list[Tensor], conf: float) -> Candidates:
        return decode(raw, self.anchors, self.strides, self.decoder, conf=conf)


def train(folder: Path, process_group: ProcessGroup, case: str) -> dict[str, object]:
    """Trains on the data of `folder`; weights, momentum buffers and rows of results.csv."""
    config = load_config(
        "yolov4-pacsp-n-mish", [*WORDS, *TRAIN_CASES[case][0]], data=f"{folder}/train.yaml"
    )
    hardware = build.build_hardware(config)
    data = build.build_data(config)
    store, lines = build.build_image_store(config, data.train.reader, process_group)
    assert len(lines) == 1  # of the image cache
    data = data.with_store(store)
    evaluator = build.build_evaluator(config, data.val, hardware, process_group)
    real = training.build_network
    training.build_network = lambda *arguments: InDouble(real(*arguments))
    try:
        trainer = build.build_trainer(config, data, evaluator, hardware, None, process_group)
    finally:
        training.build_network = real
    assert isinstance(trainer.model, InDouble)
    assert isinstance(trainer.ema, ModelEMA)
    if case == "chunks" and process_group.world_size > 1:
        trainer.progress.chunks = 2
    trainer.run()
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.progress.history]
    momentum = trainer.optimizer.state_dict()["state"]
    return {
        "weights": trainer.model.state_dict(),
        "momentum": {str(n): each["momentum_buffer"] for n, each in momentum.items()},
        "rows": rows,
    }


def evaluate(folder: Path, process_group: ProcessGroup, placement: str) -> dict[str, Any]:
    """Metrics, detections and unreadable images of an evaluation, as this rank has them."""
    torch.manual_seed(0)
    words = ["data.size=96", "data.workers=0", "train.threads=1", "train.precision=fp32"]
    words += ["eval.batch_size=2", f"eval.protocol={placement}"]
    config = load_config("yolov4-pacsp-n-mish", words, data=str(folder / "evaluate.yaml"))
    hardware, val = build.build_hardware(config), build.build_val(config)
    model = hardware.place(randomize_norms(build.build_model(config.model, 10)))
    evaluator = build.build_evaluator(config, val, hardware, process_group)
    numbers = evaluator(model)
    results = evaluator.coco_ap.results
    return {
        "numbers": numbers,
        "boxes": results and {name: torch.from_numpy(getattr(results, name)) for name in COLUMNS},
        "unreadable": evaluator.unreadable,
    }


def main() -> None:
    """Runs everything as one of two ranks and saves the results as FOLDER/RANK.pt."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(folder, rank)
    process_group = ProcessGroup(rank, 2)
    results = {
        "train": {case: train(folder, process_group, case) for case in TRAIN_CASES},
        "evaluate": {name: evaluate(folder, process_group, name) for name in PLACEMENTS},
    }
    torch.save(results, folder / f"{rank}.pt")
    process_group.destroy()


if __name__ == "__main__":
    main()
