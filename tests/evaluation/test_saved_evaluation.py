"""What an evaluation found in each image, written and read again."""

import numpy as np
import pytest

from detector.errors import UserError
from detector.evaluation import CocoAP, Results, load_evaluation, save_accuracies, save_detections
from detector.evaluation.coco_ap import METRICS
from tests.evaluation.problems import make_problem


def as_float32(results):
    """The results with corners and scores in float32, as a network gives them."""
    corners = results.boxes_xywh.copy()
    corners[:, 2:] += corners[:, :2]
    corners = corners.astype(np.float32).astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    score = results.score.astype(np.float32).astype(np.float64)
    return Results(results.image, results.label, corners, score)


@pytest.mark.parametrize("seed", range(5))
def test_ap_of_the_file_is_that_of_the_evaluation(seed, tmp_path):
    _, ground_truth, results = make_problem(seed)
    results = as_float32(results)
    path = tmp_path / "evaluation.npz"
    save_detections(path, ground_truth, results)
    saved = load_evaluation(path)
    expected = CocoAP(ground_truth, backend="pycocotools")(results)
    found = saved.resampler(np.ones(saved.num_images, np.int64))
    assert saved.metrics == METRICS
    assert found == pytest.approx(list(expected.values()), abs=1e-12)


def test_the_same_images_are_known(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _, ground_truth, results = make_problem(seed)
        save_detections(tmp_path / name, ground_truth, results.rows(np.arange(3)))
    first, second, other = (load_evaluation(tmp_path / name) for name in "abc")
    assert first.has_same_images(second)
    assert not first.has_same_images(other)


def test_accuracies(tmp_path):
    path = tmp_path / "evaluation.npz"
    values = {"top1": np.array([1.0, 0, 1]), "loss": np.array([0.5, 2, 1])}
    save_accuracies(path, np.array([3, 5, 9]), np.array([0, 1, 0]), values)
    saved = load_evaluation(path)
    assert saved.metrics == ("top1", "loss")
    assert saved.resampler(np.array([1, 1, 1])) == pytest.approx([2 / 3, 3.5 / 3])
    assert saved.resampler(np.array([0, 2, 1])) == pytest.approx([1 / 3, 5 / 3])
    assert saved.resampler(np.zeros(3, int)).tolist() == [-1, -1]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_damaged_file(tmp_path, content):
    path = tmp_path / "evaluation.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"evaluation\.npz: not a readable evaluation"):
        load_evaluation(path)


def test_an_archive_of_something_else(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(UserError, match="not a readable evaluation"):
        load_evaluation(tmp_path / "other.npz")
