"""The report page of a classifier: every section, nothing from outside, files with all rows."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from detector.api.class_validation import ClassEvaluation, read_history
from detector.data import ImageReader
from detector.data.readers.torchvision_files import _make_array_index
from detector.errors import UserError
from detector.evaluation import analyse_classes
from detector.html_report import write_class_report

NAMES = ("<cat>", "dog")


@pytest.fixture(scope="module")
def evaluation():
    """Thirty images, every third one wrong; the wrong ones have scores of 0.5 and more."""
    count = 30
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    index = _make_array_index(Path("/none"), "val", pixels, labels, NAMES)
    right = np.arange(count) % 3 != 0
    predicted = np.where(right, labels, 1 - labels)
    scores = np.linspace(0.5, 0.99, count)
    ones = np.ones(count)
    columns = (np.arange(1, count + 1), labels, right, ones, ones, predicted, scores)
    analysis = analyse_classes(np.stack(columns, 1).astype(float), NAMES)
    history = [
        {"epoch": 1.0, "loss_cls": 2.0, "top1": 0.4, "top5": 1.0, "loss": 1.5},
        {"epoch": 2.0, "loss_cls": 1.0},  # not evaluated
        {"epoch": 3.0, "loss_cls": 0.5, "top1": 0.7, "top5": 1.0, "loss": 0.8},
    ]
    return ClassEvaluation("best.pt", "cnn6", analysis, ImageReader(index), history, [])


def test_the_page_and_its_files(evaluation, tmp_path):
    path = write_class_report(tmp_path / "report", evaluation)
    page = path.read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        *("Accuracy by epoch", "Losses by epoch", "Calibration", "Classes"),
        *("Confusion matrix", "Most confident errors"),
    ]
    assert "66.67" in page
    assert "&lt;cat&gt;" in page
    assert "<cat>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is loaded from elsewhere"
    assert page.count("<figure>") == 10
    assert page.index("score 0.956") < page.index("score 0.906"), "the most confident one first"
    folder = path.parent
    errors = json.loads((folder / "errors.json").read_text())
    assert errors[0] == {
        "file": "val-00027.png",
        "class": "dog",
        "predicted": "<cat>",
        "score": round(0.5 + 0.49 * 27 / 29, 6),
    }
    assert len(errors) == 10
    rows = list(csv.reader((folder / "confusion.csv").read_text().splitlines()))
    assert rows == [["true \\ predicted", *NAMES], ["<cat>", "10", "5"], ["dog", "5", "10"]]
    assert json.loads((folder / "classes.json").read_text())["images"] == 30
    for name in ("accuracy", "losses", "calibration", "confusion", "error_01", "error_10"):
        assert (folder / f"{name}.png").is_file()


def test_without_a_run_there_are_no_curves(evaluation, tmp_path):
    alone = ClassEvaluation(
        "a.pt", "cnn6", evaluation.analysis, evaluation.reader, read_history(tmp_path / "none"), []
    )
    page = write_class_report(tmp_path, alone).read_text()
    assert "by epoch" not in page
    (tmp_path / "results.csv").write_text("epoch,top1\n1,high\n")
    with pytest.raises(UserError, match=r"results.csv: not a results.csv of a run"):
        read_history(tmp_path / "results.csv")
