"""Both backends give the same bits; what would mislead either is refused before."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.errors import UserError
from detector.evaluation import (
    CocoAP,
    GroundTruth,
    Results,
    backends,
    choose_backend,
    read_results,
    save_results,
)
from detector.structures import Detections, ImageDetections
from tests.evaluation.problems import make_problem, make_results


def same(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("stats", "precision", "scores", "recall")
    )


@pytest.mark.parametrize("start", range(0, 100, 50))
def test_both_give_the_same_bits(start):
    pytest.importorskip("hotcoco")
    for seed in range(start, start + 50):
        _, ground_truth, results = make_problem(
            seed, images=1 + seed % 8, classes=1 + seed % 4, per_image=seed % 9
        )
        slow = backends.evaluate_with_pycocotools(ground_truth, results)
        assert same(backends.evaluate_with_hotcoco(ground_truth, results), slow), seed
        bins = [("a", 0, 500.0), ("b", 500.0, 1e10)]
        slow = backends.evaluate_with_pycocotools(ground_truth, results, bins)
        assert same(backends.evaluate_with_hotcoco(ground_truth, results, bins), slow), seed


def test_more_than_a_hundred_boxes_of_a_class():
    pytest.importorskip("hotcoco")
    _, ground_truth, _ = make_problem(3, images=2, classes=1, per_image=9)
    rng = np.random.default_rng(0)
    parts = [make_results(ground_truth, rng) for _ in range(100)]
    names = ("image", "label", "boxes_xywh", "score")
    results = Results(*(np.concatenate([getattr(part, n) for part in parts]) for n in names))
    assert np.bincount(results.image).max() > 150
    assert same(
        backends.evaluate_with_hotcoco(ground_truth, results),
        backends.evaluate_with_pycocotools(ground_truth, results),
    )


@pytest.fixture(params=["pycocotools", "hotcoco"])
def backend(request):
    pytest.importorskip(request.param)
    return request.param


def perfect(ground_truth):
    real = ~ground_truth.crowd
    return Results(
        ground_truth.image[real],
        ground_truth.label[real],
        ground_truth.boxes_xywh[real],
        np.full(real.sum(), 0.5),
    )


def test_perfect_detections_give_one(backend):
    _, ground_truth, _ = make_problem(5, ids_from=0)
    assert ground_truth.notes
    assert CocoAP(ground_truth, backend=backend)(perfect(ground_truth))["AP"] == pytest.approx(
        1, abs=1e-12
    )


def test_a_known_average_precision(backend):
    """Two objects; hit, miss, hit: precision 1 up to recall 0.5, then 2/3."""
    tree = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10]}
            for n, x in ((1, 0), (2, 100))
        ],
    }
    ground_truth = GroundTruth.from_coco(tree)
    boxes = np.array([[0.0, 0, 10, 10], [50, 0, 10, 10], [100, 0, 10, 10]])
    results = Results(np.zeros(3, int), np.zeros(3, int), boxes, np.array([0.9, 0.8, 0.7]))
    metrics = CocoAP(ground_truth, backend=backend)(results)
    assert metrics["AP"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert metrics["AR1"] == pytest.approx(0.5)


def test_no_detections_give_zero(backend):
    _, ground_truth, results = make_problem(5)
    metrics = CocoAP(ground_truth, backend=backend)(results.rows(np.zeros(len(results), bool)))
    assert metrics["AP"] == metrics["AR100"] == 0
    nothing = GroundTruth.from_coco(
        {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    )
    none = results.rows(np.zeros(len(results), bool))
    assert set(CocoAP(nothing, backend=backend)(none).values()) == {-1.0}


def test_order_of_images_and_classes_changes_nothing(backend):
    """Without ties, whose order COCO takes from the image ids."""
    for seed in range(5):
        tree, ground_truth, results = make_problem(seed, classes=4)
        rng = np.random.default_rng(seed)
        results = replace(results, score=rng.permutation(len(results)) / len(results))
        order = rng.permutation(4)
        shuffled = {
            key: [entries[i] for i in rng.permutation(len(entries))]
            for key, entries in tree.items()
            if key != "annotations"
        } | {"annotations": tree["annotations"]}
        other = GroundTruth.from_coco(shuffled, ground_truth.category_ids[order].tolist())
        moved = replace(results, label=np.argsort(order)[results.label])
        mixed = moved.rows(rng.permutation(len(results)))
        assert CocoAP(other, backend=backend)(mixed) == CocoAP(ground_truth, backend=backend)(
            results
        )


def test_large_image_ids(backend):
    """Ids that a float64 cannot tell apart."""
    tree, ground_truth, results = make_problem(7)
    ids = {entry["id"]: entry["id"] + (1 << 60) for entry in tree["images"]}
    tree["images"] = [{**entry, "id": ids[entry["id"]]} for entry in tree["images"]]
    tree["annotations"] = [{**a, "image_id": ids[a["image_id"]]} for a in tree["annotations"]]
    large = GroundTruth.from_coco(tree, ground_truth.category_ids.tolist())
    assert CocoAP(large, backend=backend)(results) == CocoAP(ground_truth, backend=backend)(results)


def test_annotation_ids_do_not_matter_and_odd_ones_are_reported(backend):
    tree, ground_truth, results = make_problem(9)
    expected = CocoAP(ground_truth, backend=backend)(results)
    for first, word in ((0, "id 0"), (1, None)):
        odd = {
            **tree,
            "annotations": [{**a, "id": first + n} for n, a in enumerate(tree["annotations"])],
        }
        reread = GroundTruth.from_coco(odd, ground_truth.category_ids.tolist())
        assert CocoAP(reread, backend=backend)(results) == expected
        assert any(word in note for note in reread.notes) if word else not reread.notes
    duplicates = {**tree, "annotations": [{**a, "id": 8} for a in tree["annotations"]]}
    reread = GroundTruth.from_coco(duplicates, ground_truth.category_ids.tolist())
    assert CocoAP(reread, backend=backend)(results) == expected
    assert "id 8 occurs" in reread.notes[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["score", "box"])
def test_non_finite_numbers_are_refused(value, where):
    _, ground_truth, _ = make_problem(5)
    boxes, scores = torch.tensor([[1.0, 1, 5, 5]]), torch.tensor([0.5])
    (scores if where == "score" else boxes[0])[0] = value
    detections = ImageDetections(
        int(ground_truth.image_ids[0]), Detections(boxes, scores, torch.zeros(1).long())
    )
    with pytest.raises(UserError, match="expected finite numbers"):
        CocoAP(ground_truth)([detections])


def test_unknown_and_duplicate_ids_are_refused():
    tree, ground_truth, _ = make_problem(5)
    one = Detections(torch.tensor([[1.0, 1, 5, 5]]), torch.ones(1), torch.tensor([7]))
    with pytest.raises(UserError, match="label 7"):
        CocoAP(ground_truth)([ImageDetections(int(ground_truth.image_ids[0]), one)])
    with pytest.raises(UserError, match="evaluated twice"):
        CocoAP(ground_truth)([ImageDetections(int(ground_truth.image_ids[0]), one)] * 2)
    with pytest.raises(UserError, match=r"duplicate image id \d+"):
        GroundTruth.from_coco({**tree, "images": tree["images"] * 2})
    with pytest.raises(UserError, match=r"duplicate category id \d+"):
        GroundTruth.from_coco({**tree, "categories": tree["categories"] * 2})
    strange = {**tree["annotations"][0], "image_id": 999}
    with pytest.raises(UserError, match="annotation 1: unknown image id 999"):
        GroundTruth.from_coco({**tree, "annotations": [strange]})
    strange = {**tree["annotations"][0], "category_id": 999}
    with pytest.raises(UserError, match="annotation 1: unknown category id 999"):
        GroundTruth.from_coco({**tree, "annotations": [strange]})
    strange = {**tree["annotations"][0], "bbox": [0, 0, float("nan"), 1]}
    assert (
        len(GroundTruth.from_coco({**tree, "annotations": [strange]}).label) == 0
    )  # as in training
    with pytest.raises(UserError, match="no category id 999"):
        GroundTruth.from_coco(tree, [999])


def test_results_through_a_file(tmp_path, backend):
    _, ground_truth, results = make_problem(11)
    save_results(tmp_path / "r.json", results, ground_truth)
    again = read_results(tmp_path / "r.json", ground_truth)
    assert CocoAP(ground_truth, backend=backend)(again) == CocoAP(ground_truth, backend=backend)(
        results
    )
    for name in ("image", "label", "boxes_xywh", "score"):
        assert np.array_equal(getattr(again, name), getattr(results, name))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": 12345}, "image id 12345, which is not in"),
        ({"category_id": 12345}, "category id 12345, which is not in"),
        ({"score": float("nan")}, "expected finite numbers"),
        ({"score": None}, "'score' is not a number"),
        ({"bbox": [1, 2, 3]}, "'bbox' is not 4 numbers"),
        ({"bbox": [1, 2, -3, 4]}, "not negative"),
        ({"image_id": "a.jpg"}, "not a whole number"),
        ({"image_id": 10**30}, "at most 63 bits"),
    ],
)
def test_invalid_results_files_are_refused(tmp_path, entry, message):
    _, ground_truth, _ = make_problem(11)
    good = {
        "image_id": int(ground_truth.image_ids[0]),
        "category_id": int(ground_truth.category_ids[0]),
        "bbox": [1, 2, 3, 4],
        "score": 0.5,
    }
    (tmp_path / "r.json").write_text(json.dumps([good]))
    assert len(read_results(tmp_path / "r.json", ground_truth)) == 1
    (tmp_path / "r.json").write_text(json.dumps([good, good | entry]))
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / "r.json", ground_truth)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(UserError, match="expected a list"):
        read_results(tmp_path / "r.json", ground_truth)


def test_choosing_a_backend(monkeypatch):
    assert str(choose_backend("pycocotools")).startswith("pycocotools 2.")
    with pytest.raises(UserError, match="expected auto, hotcoco or pycocotools"):
        choose_backend("cocotools")
    monkeypatch.setattr(backends, "hotcoco", None)
    assert choose_backend("auto").name == "pycocotools"
    with pytest.raises(UserError, match="hotcoco is not installed"):
        choose_backend("hotcoco")

    class Old:
        __version__ = "1.0.1"

    monkeypatch.setattr(backends, "hotcoco", Old)
    assert choose_backend("auto").name == "pycocotools"
    with pytest.raises(UserError, match=r"hotcoco 1\.0\.1 is too old"):
        choose_backend("hotcoco")
