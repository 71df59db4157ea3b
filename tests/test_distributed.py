"""Two ranks train as one process does on the joined batch, and evaluate to the same bits.

A training step in float64 is equal to 1e-12, with a large eps in BatchNorm: over the few cells of such
small maps a difference in the 16th digit otherwise grows a thousandfold in every step, on one rank as
on two.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from detector.commands import cli
from detector.data.digits.generate import make_digits
from detector.engine import ProcessGroup
from detector.errors import UserError
from detector.evaluation import METRICS
from tests.distributed_runs import COLUMNS, PLACEMENTS, TRAIN_CASES, evaluate, train
from tests.ranks import run_two


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data to train on, and seven images to evaluate on, one of which cannot be read; each rank
    evaluates two of the four batches.
    """
    folder = tmp_path_factory.mktemp("two")
    for name, counts in (("train", (7, 5)), ("evaluate", (2, 7))):
        make_digits(folder / name, *counts)
        yaml = f"format: coco\nroot: {name}\nmirrors: false\n"
        (folder / f"{name}.yaml").write_text(yaml)
    truncated = sorted((folder / "evaluate" / "val2017").iterdir())[3]
    truncated.write_bytes(truncated.read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, dict[str, Any]]]:
    """The results of both ranks: "train" or "evaluate" -> case -> results."""
    return run_two("tests.distributed_runs", folder)


def test_only_the_first_failure_is_reported_to_torchrun(tmp_path, monkeypatch, capsys):
    """Not that of a rank that lost another one: torchrun would report the earlier of the two."""
    report = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(report))
    lost = ProcessGroup(1, 2).explain_error(RuntimeError("[gloo] Connection closed by peer"))
    for error, reported in ((lost, False), (UserError("the disk is full\nmake room"), True)):

        def fail(error=error):
            raise error

        with pytest.raises(SystemExit, match="2"):
            cli.run(fail)
        assert report.exists() == reported
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(report))
    assert failure.message == "the disk is full\nmake room"
    assert failure.timestamp > 0
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("case", TRAIN_CASES)
def test_two_ranks_train_as_one(folder, ranks, case):
    alone, tolerance = train(folder, ProcessGroup(), case), TRAIN_CASES[case][1]
    for kind in ("weights", "momentum"):
        for name, value in alone[kind].items():
            scale = max(1.0, value.double().abs().max().item())
            for rank in range(2):
                difference = (ranks[rank]["train"][case][kind][name] - value).abs().max()
                assert difference <= tolerance * scale, (kind, rank, name)
    assert ranks[0]["train"][case]["rows"] == ranks[1]["train"][case]["rows"]
    for mine, theirs in zip(alone["rows"], ranks[0]["train"][case]["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=max(tolerance, 1e-9))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_two_ranks_evaluate_to_the_bits_of_one(folder, ranks, placement):
    alone = evaluate(folder, ProcessGroup(), placement)
    first, second = (rank["evaluate"][placement] for rank in ranks)
    assert list(first["numbers"]) == list(METRICS)
    assert first["numbers"] == second["numbers"] == alone["numbers"]
    assert len(alone["boxes"]["score"]) > 20
    assert second["boxes"] is None
    for name in COLUMNS:
        assert torch.equal(first["boxes"][name], alone["boxes"][name])
    assert len(alone["unreadable"]) == 1
    assert first["unreadable"] == second["unreadable"] == alone["unreadable"]
