"""An evaluation that two processes share gives the numbers of one, to the last bit.

Run as a program it is one of the two: `python -m tests.evaluation.test_two_ranks RANK FOLDER`.
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


def evaluate(folder: Path, processes: ProcessGroup, protocol: str) -> dict[str, Any]:
    """The twelve numbers, the boxes judged and the images left out, as this process has them."""
    torch.manual_seed(0)
    words = ["data.size=96", "data.workers=0", "train.threads=1", "train.precision=fp32"]
    words += ["eval.batch_size=2", f"eval.protocol={protocol}"]
    config = load_config("yolov4-pacsp-n-mish", words, data=str(folder / "d.yaml"))
    hardware, val = build_hardware(config), build_val(config)
    model = hardware.place(randomize_norms(build_model(config.model, 10)))
    evaluator = build_evaluator(config, val, hardware, processes)
    numbers = evaluator(model)
    judged = evaluator.coco_ap.results
    return {
        "numbers": numbers,
        "boxes": judged and {name: torch.from_numpy(getattr(judged, name)) for name in COLUMNS},
        "unreadable": evaluator.unreadable,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Seven images, one of which cannot be read: of four batches each process has two."""
    folder = tmp_path_factory.mktemp("two")
    make_digits(folder / "digits", 2, 7)
    (folder / "d.yaml").write_text("format: coco\nroot: digits\nmirrors: false\n")
    spoilt = sorted((folder / "digits" / "val2017").iterdir())[3]
    spoilt.write_bytes(spoilt.read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    return run_two("tests.evaluation.test_two_ranks", folder)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_two_processes_give_the_numbers_of_one(folder, two, protocol):
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
    """One of the two processes."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    meet(folder, rank)
    processes = ProcessGroup(rank, 2)
    found = {protocol: evaluate(folder, processes, protocol) for protocol in PROTOCOLS}
    torch.save(found, folder / f"{rank}.pt")
    processes.leave()


if __name__ == "__main__":
    main()
