"""Where AP is lost: kinds of errors, confusion, points, doubtful labels."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detector.evaluation import CocoAP, GroundTruth, Results, ThresholdGoal, choose_backend
from detector.evaluation.error_analysis import KINDS, Pairs, analyse, confusion, worst_images
from tests.evaluation.problems import make_problem

BACKEND = choose_backend("pycocotools")


def scene(found):
    """Two classes; truths of class 0 at x = 0, 100, 200 and of class 1 at x = 300; 20 x 20 px each."""
    tree = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": [x, 0, 20, 20]}
            for n, (x, c) in enumerate(((0, 1), (100, 1), (200, 1), (300, 2)), 1)
        ],
    }
    image, label, x, score = (np.array(column) for column in zip(*found, strict=True))
    boxes = np.stack([x, x * 0, x * 0 + 20, x * 0 + 20], 1).astype(float)
    return GroundTruth.from_coco(tree), Results(image, label, boxes, score.astype(float))


EACH_KIND = [
    (0, 0, 0, 0.95),  # right
    (0, 0, 1, 0.9),  # duplicate
    (0, 1, 100, 0.85),  # class
    (0, 0, 213, 0.8),  # location: IoU 7 / 33
    (0, 0, 313, 0.7),  # both
    (1, 1, 50, 0.6),  # background
]


def test_each_kind_of_error_is_told():
    truth, results = scene(EACH_KIND)
    analysis = analyse(truth, results, BACKEND)
    assert {kind: count for kind, (count, _) in analysis.errors.items()} == dict.fromkeys(KINDS, 1)


def test_mending_gives_the_ap_of_the_mended_results():
    truth, results = scene(EACH_KIND)
    analysis = analyse(truth, results, BACKEND)
    judge = CocoAP(truth, backend="pycocotools")
    now = judge(results)["AP50"]
    assert analysis.ap50 == now
    keep = np.array([1, 0, 1, 1, 1, 1], bool)
    cost = judge(results.rows(keep))["AP50"] - now
    assert analysis.errors["duplicate"][1] == pytest.approx(cost)
    assert analysis.errors["class"][1] > 0
    assert analysis.errors["location"][1] > 0


def test_perfect_results_have_no_errors():
    truth, results = scene([(0, 0, 0, 0.9), (0, 0, 100, 0.9), (0, 0, 200, 0.9), (0, 1, 300, 0.9)])
    analysis = analyse(truth, results, BACKEND)
    assert all(value == (0, 0.0) for value in analysis.errors.values())
    assert np.array_equal(analysis.confusion, np.diag([3, 1, 0]))
    assert analysis.worst == analysis.suspects == []
    assert analysis.curve.f1.max() == 1
    assert [line.ap for line in analysis.classes] == pytest.approx([1, 1])


def test_confusion_counts_every_truth_and_every_sure_box():
    truth, results = scene(EACH_KIND)
    analysis = analyse(truth, results, BACKEND)
    sure = results.score >= analysis.threshold
    assert analysis.confusion[:-1].sum() == 4
    assert analysis.confusion[:, :-1].sum() == sure.sum()
    assert confusion(truth, results)[0, 1] == 1  # a cat taken for a dog


def test_every_sure_box_is_in_the_confusion_matrix():
    """Also where an image has more than the hundred of a class that COCO judges."""
    truth, _ = scene(EACH_KIND)
    crowded = [(0, label, 1000 + 50 * n, 0.5) for label in (0, 1) for n in range(120)]
    results = scene([*crowded, (0, 0, 0, 0.4)])[1]
    table = confusion(truth, results)
    assert table[:, :-1].sum() == len(results)
    assert table[0].tolist() == [1, 0, 2]
    assert table[2].tolist() == [120, 120, 0]
    (worst,) = worst_images(truth, results, 0.5)
    assert (len(worst.false), len(worst.missed), len(worst.found)) == (240, 4, 0)


def test_a_goal_decides_what_is_judged():
    truth, results = scene([*EACH_KIND, (0, 0, 100, 0.5)])
    for goal, score in (
        (ThresholdGoal(), 0.95),
        (ThresholdGoal("precision", 1), 0.95),
        (ThresholdGoal("recall", 0.5), 0.5),
    ):
        analysis = analyse(truth, results, BACKEND, goal)
        assert analysis.threshold == analysis.point.score == score
        assert analysis.confusion[:, :-1].sum() == (results.score >= score).sum()
    analysis = analyse(truth, results, BACKEND, ThresholdGoal("recall", 0.9))
    assert analysis.point is None
    assert analysis.threshold == 0.95
    told = analysis.thresholds()
    assert told["all"] is None
    assert [one["point"] for one in told["classes"]] == [None, None]
    assert json.loads(json.dumps(told)) == told


def test_nothing_found_and_nothing_there():
    truth, results = scene(EACH_KIND)
    none = results.rows(np.zeros(len(results), bool))
    analysis = analyse(truth, none, BACKEND)
    assert analysis.point is None
    assert analysis.errors["missed"] == (4, 1.0)
    assert {one.kind for one in analysis.suspects} == {"nothing there"}
    empty = GroundTruth.from_coco(
        {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    )
    for found in (none, results.rows(results.label == 0)):
        analysis = analyse(empty, replace(found, image=found.image * 0), BACKEND)
        assert analysis.classes[0].ap is None
        assert all(cost == 0 for _, cost in analysis.errors.values())
        assert analysis.classes[0].point is None


def test_class_curves_are_those_of_the_class_alone():
    for seed in range(20):
        _, truth, results = make_problem(seed, classes=3)
        analysis = analyse(truth, results, BACKEND)
        for label, one in enumerate(analysis.classes):
            columns = ("image", "label", "boxes_xywh", "area", "crowd")
            mine = {c: getattr(truth, c)[truth.label == label] for c in columns}
            alone = analyse(replace(truth, **mine), results.rows(results.label == label), BACKEND)
            for column in ("score", "precision", "recall"):
                assert np.array_equal(getattr(one.curve, column), getattr(alone.curve, column))


def test_suspects_are_ranked_and_named():
    truth, results = scene([(0, 0, 0, 0.9), (1, 1, 50, 0.99), (1, 0, 150, 0.95), (0, 1, 100, 0.97)])
    found = analyse(truth, results, BACKEND).suspects
    assert [s.score for s in found if s.kind == "no label"] == sorted(
        (s.score for s in found if s.kind == "no label"), reverse=True
    )
    (other,) = (s for s in found if s.kind == "other class")
    assert (other.found, other.labelled) == ("dog", "cat")
    assert {s.box_xywh[0] for s in found if s.kind == "nothing there"} == {200, 300}


def test_random_problems_add_up():
    for seed in range(30):
        _, truth, results = make_problem(seed, classes=3)
        analysis = analyse(truth, results, BACKEND)
        stats = CocoAP(truth, backend="pycocotools")(results)
        known = [line.ap for line in analysis.classes if line.ap is not None]
        if known:
            assert np.mean(known) == pytest.approx(stats["AP"])
        assert analysis.confusion[:-1].sum() == (~truth.crowd).sum()
        assert all(0 <= share <= 1 for _, share, _ in analysis.calibration)


def test_pairs_equal_a_loop():
    _, truth, results = make_problem(3)
    pairs = Pairs.of(truth, results, np.arange(len(results)))
    seen = dict(
        zip(zip(pairs.found.tolist(), pairs.truth.tolist(), strict=True), pairs.iou, strict=True)
    )
    for d in range(len(results)):
        for t in range(len(truth.image)):
            (x, y, w, h), (u, v, p, q) = results.boxes_xywh[d], truth.boxes_xywh[t]
            inter = max(min(x + w, u + p) - max(x, u), 0) * max(min(y + h, v + q) - max(y, v), 0)
            if results.image[d] != truth.image[t] or not inter:
                assert (d, t) not in seen
                continue
            whole = w * h if truth.crowd[t] else w * h + p * q - inter
            assert seen[d, t] == pytest.approx(inter / whole)
