"""Matches and counts equal pycocotools', box by box and number by number."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation import CocoAP, GroundTruth, Results
from detector.evaluation.intervals import Resampler, bootstrap, interval
from detector.evaluation.matching import IOU_THRESHOLDS, RECALLS, match
from tests.evaluation.problems import make_problem


def by_pycocotools(truth, results):
    """{(image, class, area): (rows, truth rows [T, d], ignored [T, d])}, of its own dictionaries."""
    annotations = [
        {
            "id": n + 1,
            "image_id": int(truth.image[n]),
            "category_id": int(truth.label[n]),
            "bbox": truth.boxes_xywh[n].tolist(),
            "area": truth.area[n],
            "iscrowd": int(truth.crowd[n]),
        }
        for n in range(len(truth.image))
    ]
    table = np.column_stack([results.image, results.boxes_xywh, results.score, results.label])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": n} for n in range(len(truth.image_ids))],
            "categories": [{"id": n} for n in range(len(truth.names))],
            "annotations": annotations,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(table), "bbox")
        judge.evaluate()
    areas = [tuple(area) for area in judge.params.areaRng]
    return {
        (e["image_id"], e["category_id"], areas.index(tuple(e["aRng"]))): (
            np.array(e["dtIds"], int) - 1,
            e["dtMatches"].astype(int) - 1,
            e["dtIgnore"],
        )
        for e in judge.evalImgs
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
        _, truth, results = make_problem(seed, images=1 + seed % 5, per_image=1 + seed % 12)
        if not len(results):
            continue
        matches = match(truth, results)
        place = np.full(len(results), -1)
        place[matches.rows] = np.arange(len(matches.rows))
        for (_, _, area), (rows, expected, ignored) in by_pycocotools(truth, results).items():
            at = place[rows]
            assert (at >= 0).all()
            assert np.array_equal(matches.truth[area][:, at], expected)
            assert np.array_equal(matches.ignored[area][:, at], ignored)
            assert matches.rank[at].tolist() == list(range(len(at)))
            compared += len(rows)
    assert compared > 500


def test_only_the_best_hundred_of_an_image_and_class_are_judged():
    _, truth, _ = make_problem(1, images=1, classes=1)
    n = 150
    score = np.random.default_rng(0).permutation(n) / n
    zero = np.zeros(n, int)
    results = Results(zero, zero, np.tile([0.0, 0, 9, 9], (n, 1)), score)
    assert set(match(truth, results).rows) == set(np.argsort(-score)[:100])


def test_counting_every_image_once_gives_cocos_numbers():
    for seed in range(150):
        _, truth, results = make_problem(seed, images=1 + seed % 8, classes=1 + seed % 4)
        once = Resampler(truth, results)(np.ones(len(truth.image_ids), int))
        expected = list(CocoAP(truth, backend="pycocotools")(results).values())
        np.testing.assert_allclose(once, expected, atol=1e-12, err_msg=str(seed))


def copies(truth, results, weights):
    """The problem with image i standing there weights[i] times."""
    image = np.repeat(np.arange(len(weights)), weights)
    rows_t = [np.flatnonzero(truth.image == i) for i in image]
    rows_d = [np.flatnonzero(results.image == i) for i in image]
    new_t = np.repeat(np.arange(len(image)), [len(r) for r in rows_t])
    new_d = np.repeat(np.arange(len(image)), [len(r) for r in rows_d])
    t, d = np.concatenate(rows_t), np.concatenate(rows_d)
    more = replace(
        truth,
        image_ids=np.arange(1, len(image) + 1),
        **{name: getattr(truth, name)[t] for name in ("label", "boxes_xywh", "area", "crowd")},
        image=new_t,
    )
    return more, replace(results.rows(d), image=new_d)


def test_counting_an_image_twice_equals_two_copies_of_it():
    for seed in range(60):
        _, truth, results = make_problem(seed, images=2 + seed % 6)
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 4, len(truth.image_ids))
        weights[0] = 2
        results = replace(results, score=rng.permutation(len(results)) / max(len(results), 1))
        expected = CocoAP(copies(truth, results, weights)[0], backend="pycocotools")(
            copies(truth, results, weights)[1]
        )
        np.testing.assert_allclose(
            Resampler(truth, results)(weights), list(expected.values()), atol=1e-12
        )


def test_an_interval_narrows_with_more_images_and_holds_the_number():
    widths = []
    for images in (20, 320):
        _, truth, results = make_problem(4, images=images)
        model = Resampler(truth, results)
        samples = bootstrap([model, model], images, seed=0, resamples=100)
        assert np.array_equal(samples[0], samples[1], equal_nan=True)  # paired
        values = model(np.ones(images, int))
        (low, high), *_ = interval(samples[0], values.tolist())
        assert low < values[0] < high
        widths.append(high - low)
    assert 2 < widths[0] / widths[1] < 8  # root of 16


def test_nothing_to_find_has_no_interval():
    truth = GroundTruth.from_coco(
        {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    )
    zero = np.zeros(0, int)
    results = Results(zero, zero, np.zeros((0, 4)), np.zeros(0))
    samples = bootstrap([Resampler(truth, results)], 1, seed=0, resamples=3)
    assert interval(samples[0], [-1.0] * 12) == [None] * 12


def test_intervals_of_few_images_hold_the_number_of_all():
    """They would miss it mostly were they the quantiles: AP of few images is too high on average."""
    _, truth, results = make_problem(1, images=600, classes=5)
    expected = Resampler(truth, results)(np.ones(600, int))[0]
    held = above = 0
    for part in np.arange(600).reshape(20, 30):
        model = Resampler(*of_images(truth, results, part))
        samples = bootstrap([model], len(part), seed=0, resamples=30)[0]
        value = model(np.ones(len(part), int)).tolist()
        low, high = interval(samples, value)[0]
        held += low <= expected <= high
        above += value[0] > expected
    assert held >= 15  # of 20
    assert above >= 13


def of_images(truth, results, places):
    """Truth and results of some images alone."""
    place = np.full(len(truth.image_ids), -1)
    place[places] = np.arange(len(places))
    mine = place[truth.image] >= 0
    columns = {
        name: getattr(truth, name)[mine] for name in ("label", "boxes_xywh", "area", "crowd")
    }
    part = replace(
        truth, image_ids=truth.image_ids[places], image=place[truth.image[mine]], **columns
    )
    found = results.rows(place[results.image] >= 0)
    return part, replace(found, image=place[found.image])
