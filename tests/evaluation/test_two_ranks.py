"""An evaluation on two ranks gives the numbers of one, to the last bit.

Run as a program it is one of the ranks: `python -m tests.evaluation.test_two_ranks RANK FOLDER`.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.build import build_evaluator, build_hardware, build_model, build_val
from detector.config import load_config
from detector.data.digits.generate import make_digits
from detector.engine import ProcessGroup
from detector.evaluation import METRICS
from tests.models.networks import randomize_norms
from tests.ranks import meet, run_two

PROTOCOLS = ("letterbox", "rectangular")
COLUMNS = ("image", "label", "boxes_xywh", "score")


def evaluate(folder: Path, process_group: ProcessGroup, protocol: str) -> dict[str, Any]:
    """The twelve numbers, the detections and the unreadable images, as this rank has them."""
    torch.manual_seed(0)
    words = ["data.size=96", "data.workers=0", "train.threads=1", "train.precision=fp32"]
    words += ["eval.batch_size=2", f"eval.protocol={protocol}"]
    config = load_config("yolov4-pacsp-n-mish", words, data=str(folder / "d.yaml"))
    hardware, val = build_hardware(config), build_val(config)
    model = hardware.place(randomize_norms(build_model(config.model, 10)))
    evaluator = build_evaluator(config, val, hardware, process_group)
    numbers = evaluator(model)
    results = evaluator.coco_ap.results
    return {
        "numbers": numbers,
        "boxes": results and {name: torch.from_numpy(getattr(results, name)) for name in COLUMNS},
        "unreadable": evaluator.unreadable,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Seven images, one of which cannot be read; each rank has two of the four batches."""
    folder = tmp_path_factory.mktemp("two")
    make_digits(folder / "digits", 2, 7)
    (folder / "d.yaml").write_text("format: coco\nroot: digits\nmirrors: false\n")
    truncated = sorted((folder / "digits" / "val2017").iterdir())[3]
    truncated.write_bytes(truncated.read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return run_two("tests.evaluation.test_two_ranks", folder)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_ranks_give_the_numbers_of_one(folder, two, protocol):
    alone = evaluate(folder, ProcessGroup(), protocol)
    first, second = (each[protocol] for each in two)
    assert list(first["numbers"]) == list(METRICS)
    assert first["numbers"] == second["numbers"] == alone["numbers"]
    assert len(alone["boxes"]["score"]) > 20
    assert second["boxes"] is None
    for name in COLUMNS:
        assert torch.equal(first["boxes"][name], alone["boxes"][name])
    assert len(alone["unreadable"]) == 1
    assert first["unreadable"] == second["unreadable"] == alone["unreadable"]


def main() -> None:
    """One of the two ranks."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(folder, rank)
    process_group = ProcessGroup(rank, 2)
    outcome = {protocol: evaluate(folder, process_group, protocol) for protocol in PROTOCOLS}
    torch.save(outcome, folder / f"{rank}.pt")
    process_group.destroy()


if __name__ == "__main__":
    main()
