"""Matches equal pycocotools', box by box, and resampled numbers equal its numbers."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation import CocoAP, GroundTruth, Results
from detector.evaluation.intervals import Resampler, bootstrap, compute_confidence_intervals
from detector.evaluation.matching import IOU_THRESHOLDS, RECALLS, match
from tests.evaluation.problems import make_problem


def by_pycocotools(ground_truth, results):
    """{(image, class, area): (rows, ground-truth rows [T, d], ignored [T, d])} of its dictionaries."""
    annotations = [
        {
            "id": n + 1,
            "image_id": int(ground_truth.image[n]),
            "category_id": int(ground_truth.label[n]),
            "bbox": ground_truth.boxes_xywh[n].tolist(),
            "area": ground_truth.area[n],
            "iscrowd": int(ground_truth.crowd[n]),
        }
        for n in range(len(ground_truth.image))
    ]
    table = np.column_stack([results.image, results.boxes_xywh, results.score, results.label])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n} for n in range(len(ground_truth.image_ids))],
            "categories": [{"id": n} for n in range(len(ground_truth.names))],
            "annotations": annotations,
        }
        coco.createIndex()
        coco_ap = COCOeval(coco, coco.loadRes(table), "bbox")
        coco_ap.evaluate()
    areas = [tuple(area) for area in coco_ap.params.areaRng]
    return {
        (e["image_id"], e["category_id"], areas.index(tuple(e["aRng"]))): (
            np.array(e["dtIds"], int) - 1,
            e["dtMatches"].astype(int) - 1,
            e["dtIgnore"],
        )
        for e in coco_ap.evalImgs
        if e is not None
    }


def test_thresholds_are_cocos():
    params = COCOeval(iouType="bbox").params
    assert np.array_equal(params.iouThrs, IOU_THRESHOLDS)
    assert np.array_equal(params.recThrs, RECALLS)


@pytest.mark.parametrize("start", [0, 40, 80])
def test_every_box_has_the_match_that_pycocotools_gives_it(start):
    compared = 0
    for seed in range(start, start + 40):
        _, ground_truth, results = make_problem(seed, images=1 + seed % 5, per_image=1 + seed % 12)
        if not len(results):
            continue
        matches = match(ground_truth, results)
        place = np.full(len(results), -1)
        place[matches.rows] = np.arange(len(matches.rows))
        for (_, _, area), (rows, expected, ignored) in by_pycocotools(
            ground_truth, results
        ).items():
            at = place[rows]
            assert (at >= 0).all()
            assert np.array_equal(matches.gt_rows[area][:, at], expected)
            assert np.array_equal(matches.ignored[area][:, at], ignored)
            assert matches.rank[at].tolist() == list(range(len(at)))
            compared += len(rows)
    assert compared > 500


def test_only_the_best_hundred_of_an_image_and_class_are_evaluated():
    _, ground_truth, _ = make_problem(1, images=1, classes=1)
    n = 150
    score = np.random.default_rng(0).permutation(n) / n
    zero = np.zeros(n, int)
    results = Results(zero, zero, np.tile([0.0, 0, 9, 9], (n, 1)), score)
    assert set(match(ground_truth, results).rows) == set(np.argsort(-score)[:100])


def test_counting_every_image_once_gives_cocos_numbers():
    for seed in range(60):
        _, ground_truth, results = make_problem(seed, images=1 + seed % 8, classes=1 + seed % 4)
        once = Resampler(ground_truth, results)(np.ones(len(ground_truth.image_ids), int))
        expected = list(CocoAP(ground_truth, backend="pycocotools")(results).values())
        np.testing.assert_allclose(once, expected, atol=1e-12, err_msg=str(seed))


def copies(ground_truth, results, weights):
    """The problem with weights[i] copies of image i."""
    image = np.repeat(np.arange(len(weights)), weights)
    rows_t = [np.flatnonzero(ground_truth.image == i) for i in image]
    rows_d = [np.flatnonzero(results.image == i) for i in image]
    new_t = np.repeat(np.arange(len(image)), [len(r) for r in rows_t])
    new_d = np.repeat(np.arange(len(image)), [len(r) for r in rows_d])
    t, d = np.concatenate(rows_t), np.concatenate(rows_d)
    more = replace(
        ground_truth,
        image_ids=np.arange(1, len(image) + 1),
        **{
            name: getattr(ground_truth, name)[t]
            for name in ("label", "boxes_xywh", "area", "crowd")
        },
        image=new_t,
    )
    return more, replace(results.rows(d), image=new_d)


def test_counting_an_image_twice_equals_two_copies_of_it():
    for seed in range(30):
        _, ground_truth, results = make_problem(seed, images=2 + seed % 6)
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 4, len(ground_truth.image_ids))
        weights[0] = 2
        results = replace(results, score=rng.permutation(len(results)) / max(len(results), 1))
        expected = CocoAP(copies(ground_truth, results, weights)[0], backend="pycocotools")(
            copies(ground_truth, results, weights)[1]
        )
        np.testing.assert_allclose(
            Resampler(ground_truth, results)(weights), list(expected.values()), atol=1e-12
        )


def test_an_interval_narrows_with_more_images_and_contains_the_number():
    widths = []
    for images in (20, 320):
        _, ground_truth, results = make_problem(4, images=images)
        model = Resampler(ground_truth, results)
        samples = bootstrap([model, model], images, seed=0, resamples=100)
        assert np.array_equal(samples[0], samples[1], equal_nan=True)  # paired
        values = model(np.ones(images, int))
        (low, high), *_ = compute_confidence_intervals(samples[0], values.tolist())
        assert low < values[0] < high
        widths.append(high - low)
    assert 2 < widths[0] / widths[1] < 8  # root of 16


def test_without_ground_truth_there_is_no_interval():
    ground_truth = GroundTruth.from_coco(
        {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    )
    zero = np.zeros(0, int)
    results = Results(zero, zero, np.zeros((0, 4)), np.zeros(0))
    samples = bootstrap([Resampler(ground_truth, results)], 1, seed=0, resamples=3)
    assert compute_confidence_intervals(samples[0], [-1.0] * 12) == [None] * 12


@pytest.mark.slow
def test_intervals_of_few_images_contain_the_number_of_all():
    """Plain quantiles would mostly miss it: AP of few images is too high on average."""
    _, ground_truth, results = make_problem(1, images=600, classes=5)
    expected = Resampler(ground_truth, results)(np.ones(600, int))[0]
    held = above = 0
    for part in np.arange(600).reshape(20, 30):
        model = Resampler(*of_images(ground_truth, results, part))
        samples = bootstrap([model], len(part), seed=0, resamples=30)[0]
        value = model(np.ones(len(part), int)).tolist()
        low, high = compute_confidence_intervals(samples, value)[0]
        held += low <= expected <= high
        above += value[0] > expected
    assert held >= 15  # of 20
    assert above >= 13


def of_images(ground_truth, results, places):
    """Ground truth and results of some images alone."""
    place = np.full(len(ground_truth.image_ids), -1)
    place[places] = np.arange(len(places))
    mine = place[ground_truth.image] >= 0
    columns = {
        name: getattr(ground_truth, name)[mine] for name in ("label", "boxes_xywh", "area", "crowd")
    }
    part = replace(
        ground_truth,
        image_ids=ground_truth.image_ids[places],
        image=place[ground_truth.image[mine]],
        **columns,
    )
    kept = results.rows(place[results.image] >= 0)
    return part, replace(kept, image=place[kept.image])
