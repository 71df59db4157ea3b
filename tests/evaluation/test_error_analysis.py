"""Error analysis: kinds of errors, dAP, confusion matrix, operating points, label errors."""

import json
from dataclasses import replace

import numpy as np
import pytest

from detector.evaluation import CocoAP, GroundTruth, Results, ThresholdGoal, choose_backend
from detector.evaluation.confusion import count_confusions, find_worst_images
from detector.evaluation.error_analysis import analyse, compute_score_curves
from detector.evaluation.error_types import KINDS, OverlappingPairs
from detector.evaluation.matching import ALL_SIZES, IOU_HALF, match
from tests.evaluation.problems import make_problem

BACKEND = choose_backend("auto")  # the fast one; both give the same bits


def scene(detections):
    """Two classes: objects of class 0 at x = 0, 100, 200 and of class 1 at x = 300; 20 x 20 px each."""
    tree = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": [x, 0, 20, 20]}
            for n, (x, c) in enumerate(((0, 1), (100, 1), (200, 1), (300, 2)), 1)
        ],
    }
    image, label, x, score = (np.array(column) for column in zip(*detections, strict=True))
    boxes = np.stack([x, x * 0, x * 0 + 20, x * 0 + 20], 1).astype(float)
    return GroundTruth.from_coco(tree), Results(image, label, boxes, score.astype(float))


EACH_KIND = [
    (0, 0, 0, 0.95),  # right
    (0, 0, 1, 0.9),  # duplicate
    (0, 1, 100, 0.85),  # class
    (0, 0, 213, 0.8),  # localization: IoU 7 / 33
    (0, 0, 313, 0.7),  # both
    (1, 1, 50, 0.6),  # background
]


def test_each_kind_of_error_is_counted():
    ground_truth, results = scene(EACH_KIND)
    analysis = analyse(ground_truth, results, BACKEND)
    assert {kind: count for kind, (count, _) in analysis.errors.items()} == dict.fromkeys(KINDS, 1)


def test_dap_is_the_ap_of_the_corrected_results():
    ground_truth, results = scene(EACH_KIND)
    analysis = analyse(ground_truth, results, BACKEND)
    coco_ap = CocoAP(ground_truth, backend="auto")
    now = coco_ap(results)["AP50"]
    assert analysis.ap50 == now
    keep = np.array([1, 0, 1, 1, 1, 1], bool)
    dap = coco_ap(results.rows(keep))["AP50"] - now
    assert analysis.errors["duplicate"][1] == pytest.approx(dap)
    assert analysis.errors["class"][1] > 0
    assert analysis.errors["localization"][1] > 0


def test_perfect_results_have_no_errors():
    ground_truth, results = scene(
        [(0, 0, 0, 0.9), (0, 0, 100, 0.9), (0, 0, 200, 0.9), (0, 1, 300, 0.9)]
    )
    analysis = analyse(ground_truth, results, BACKEND)
    assert all(value == (0, 0.0) for value in analysis.errors.values())
    assert np.array_equal(analysis.confusion, np.diag([3, 1, 0]))
    assert analysis.worst_images == analysis.label_errors == []
    assert analysis.curve.f1.max() == 1
    assert [line.ap for line in analysis.classes] == pytest.approx([1, 1])


def test_confusion_counts_every_object_and_every_confident_detection():
    ground_truth, results = scene(EACH_KIND)
    analysis = analyse(ground_truth, results, BACKEND)
    confident = results.score >= analysis.threshold
    assert analysis.confusion[:-1].sum() == 4
    assert analysis.confusion[:, :-1].sum() == confident.sum()
    assert count_confusions(ground_truth, results)[0, 1] == 1  # a cat predicted as a dog


def test_confusion_has_no_limit_of_detections():
    """Also where an image has more of a class than the hundred that COCO evaluates."""
    ground_truth, _ = scene(EACH_KIND)
    crowded = [(0, label, 1000 + 50 * n, 0.5) for label in (0, 1) for n in range(120)]
    results = scene([*crowded, (0, 0, 0, 0.4)])[1]
    table = count_confusions(ground_truth, results)
    assert table[:, :-1].sum() == len(results)
    assert table[0].tolist() == [1, 0, 2]
    assert table[2].tolist() == [120, 120, 0]
    (worst,) = find_worst_images(ground_truth, results, 0.5)
    assert (len(worst.false_positives), len(worst.missed)) == (240, 4)
    assert not len(worst.matched)


def test_the_goal_sets_the_threshold_of_the_analysis():
    ground_truth, results = scene([*EACH_KIND, (0, 0, 100, 0.5)])
    for goal, score in (
        (ThresholdGoal(), 0.95),
        (ThresholdGoal("precision", 1), 0.95),
        (ThresholdGoal("recall", 0.5), 0.5),
    ):
        analysis = analyse(ground_truth, results, BACKEND, goal)
        assert analysis.threshold == analysis.point.score == score
        assert analysis.confusion[:, :-1].sum() == (results.score >= score).sum()
    analysis = analyse(ground_truth, results, BACKEND, ThresholdGoal("recall", 0.9))
    assert analysis.point is None
    assert analysis.threshold == 0.95
    values = analysis.thresholds_as_json()
    assert values["all"] is None
    assert [one["point"] for one in values["classes"]] == [None, None]
    assert json.loads(json.dumps(values)) == values


def test_no_detections_and_no_ground_truth():
    ground_truth, results = scene(EACH_KIND)
    none = results.rows(np.zeros(len(results), bool))
    analysis = analyse(ground_truth, none, BACKEND)
    assert analysis.point is None
    assert analysis.errors["missed"] == (4, 1.0)
    assert {one.kind for one in analysis.label_errors} == {"nothing there"}
    empty = GroundTruth.from_coco(
        {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    )
    for detections in (none, results.rows(results.label == 0)):
        analysis = analyse(empty, replace(detections, image=detections.image * 0), BACKEND)
        assert analysis.classes[0].ap is None
        assert all(dap == 0 for _, dap in analysis.errors.values())
        assert analysis.classes[0].point is None


def curves_of(ground_truth, results):
    matches = match(ground_truth, results, areas=ALL_SIZES, thresholds=IOU_HALF)
    return compute_score_curves(ground_truth, results, matches)


def test_class_curves_are_those_of_the_class_alone():
    for seed in range(20):
        _, ground_truth, results = make_problem(seed, classes=3)
        _, curves = curves_of(ground_truth, results)
        for label, curve in enumerate(curves):
            columns = ("image", "label", "boxes_xywh", "area", "crowd")
            mine = {c: getattr(ground_truth, c)[ground_truth.label == label] for c in columns}
            of_class = results.rows(results.label == label)
            alone, _ = curves_of(replace(ground_truth, **mine), of_class)
            for column in ("score", "precision", "recall"):
                assert np.array_equal(getattr(curve, column), getattr(alone, column))


def test_label_errors_are_ranked_and_named():
    ground_truth, results = scene(
        [(0, 0, 0, 0.9), (1, 1, 50, 0.99), (1, 0, 150, 0.95), (0, 1, 100, 0.97)]
    )
    errors = analyse(ground_truth, results, BACKEND).label_errors
    assert [s.score for s in errors if s.kind == "no label"] == sorted(
        (s.score for s in errors if s.kind == "no label"), reverse=True
    )
    (other,) = (s for s in errors if s.kind == "other class")
    assert (other.predicted, other.labelled) == ("dog", "cat")
    assert {s.box_xywh[0] for s in errors if s.kind == "nothing there"} == {200, 300}


def test_random_problems_add_up():
    for seed in range(30):
        _, ground_truth, results = make_problem(seed, classes=3)
        analysis = analyse(ground_truth, results, BACKEND)
        stats = CocoAP(ground_truth, backend="auto")(results)
        known = [line.ap for line in analysis.classes if line.ap is not None]
        if known:
            assert np.mean(known) == pytest.approx(stats["AP"])
        assert analysis.confusion[:-1].sum() == (~ground_truth.crowd).sum()
        assert all(0 <= each.precision <= 1 for each in analysis.calibration)


def test_pairs_equal_a_loop():
    _, ground_truth, results = make_problem(3)
    pairs = OverlappingPairs.find(ground_truth, results, np.arange(len(results)))
    seen = dict(
        zip(
            zip(pairs.detection.tolist(), pairs.gt.tolist(), strict=True),
            pairs.iou,
            strict=True,
        )
    )
    for d in range(len(results)):
        for t in range(len(ground_truth.image)):
            (x, y, w, h), (u, v, p, q) = results.boxes_xywh[d], ground_truth.boxes_xywh[t]
            inter = max(min(x + w, u + p) - max(x, u), 0) * max(min(y + h, v + q) - max(y, v), 0)
            if results.image[d] != ground_truth.image[t] or not inter:
                assert (d, t) not in seen
                continue
            whole = w * h if ground_truth.crowd[t] else w * h + p * q - inter
            assert seen[d, t] == pytest.approx(inter / whole)
