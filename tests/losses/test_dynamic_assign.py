"""SimOTA and task-aligned assignment against loops straight from the papers."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from detector.losses import ASSIGNERS, CLASS_LOSSES, LossTerms
from detector.losses.dynamic_assign import CandidateScores, rank_within

from .test_yolo_loss import TWO, make_batch, make_loss, make_raw


def random_candidates(generator, boxes=4, slots=12, number=40):
    """Candidates of a few boxes for a few slots: each pair at most once."""
    pairs = torch.randperm(boxes * slots, generator=generator)[:number]
    box, slot = pairs // slots, pairs % slots
    iou, score, cost = torch.rand(3, number, generator=generator)
    if number > 10:
        iou[:3] = 0
    return CandidateScores(box, slot, iou, score, cost * 5)


def by_box(candidates):
    members: dict[int, list[int]] = {}
    for i, box in enumerate(candidates.box.tolist()):
        members.setdefault(box, []).append(i)
    return members


def keep_best_of_slot(chosen, slot, cost):
    """Of the chosen candidates of a slot, the one of lowest cost."""
    best: dict[int, int] = {}
    for i in sorted(chosen):
        if slot[i] not in best or cost[i] < cost[best[slot[i]]]:
            best[slot[i]] = i
    return set(best.values())


def reference_simota(candidates):
    iou, slot = candidates.iou.tolist(), candidates.slot.tolist()
    cost = [
        c - 3 * math.log(i + 1e-8) for c, i in zip(candidates.class_cost.tolist(), iou, strict=True)
    ]
    chosen = set()
    for members in by_box(candidates).values():
        k = max(int(sum(sorted((iou[i] for i in members), reverse=True)[:10])), 1)
        chosen |= set(sorted(members, key=lambda i: cost[i])[:k])
    return keep_best_of_slot(chosen, slot, cost)


def reference_task_aligned(candidates):
    iou, slot = candidates.iou.tolist(), candidates.slot.tolist()
    t = [s * i**6 for s, i in zip(candidates.score.tolist(), iou, strict=True)]
    chosen = set()
    for members in by_box(candidates).values():
        chosen |= set(sorted(members, key=lambda i: -t[i])[:13])
    chosen = keep_best_of_slot(chosen, slot, [-i for i in iou])
    quality = {}
    for members in by_box(candidates).values():
        own = [i for i in members if i in chosen]
        for i in own:
            largest = max(t[j] for j in own)
            quality[i] = t[i] / largest * max(iou[j] for j in own) if largest else 0.0
    return quality


@pytest.mark.parametrize("number", [1, 5, 40])
def test_simota_equals_its_reference(number):
    generator = torch.Generator().manual_seed(number)
    for _ in range(100):
        candidates = random_candidates(generator, number=number)
        keep = ASSIGNERS["simota"](candidates).keep
        assert set(keep.nonzero()[:, 0].tolist()) == reference_simota(candidates)


@pytest.mark.parametrize("number", [1, 5, 40])
def test_task_aligned_equals_its_reference(number):
    generator = torch.Generator().manual_seed(number)
    for _ in range(100):
        candidates = random_candidates(generator, boxes=2, slots=30, number=number)
        assignment = ASSIGNERS["task_aligned"](candidates)
        expected = reference_task_aligned(candidates)
        kept = assignment.keep.nonzero()[:, 0].tolist()
        assert set(kept) == set(expected)
        for i in kept:
            assert float(assignment.quality[i]) == pytest.approx(expected[i], rel=1e-4, abs=1e-7)


def test_ranks_are_within_the_group():
    group, values = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([3.0, 2.0, 1.0, 2.0, 2.0])
    assert rank_within(group, values).tolist() == [2, 0, 0, 1, 1]
    assert rank_within(group[:0], values[:0]).tolist() == []


def match(loss, raw):
    """The chosen matches of TWO."""
    return loss._choose(raw, loss._list_candidates(raw, TWO), TWO)


@pytest.mark.parametrize("name", ["simota", "task_aligned"])
def test_the_objectness_of_few_matches_weighs_as_much_as_that_of_all_candidates(name):
    loss, raw = make_loss(terms=LossTerms(assigner=ASSIGNERS[name])), make_raw()
    matches = match(loss, raw)
    mean = 0.0
    for number, (m, level) in enumerate(zip(matches, raw, strict=True)):
        target = torch.zeros_like(level[..., 4])
        for i in range(len(m.box)):
            cell = (m.image[i], m.anchor[i], m.row[i], m.column[i])
            values = level[cell][None]
            one = m.select(torch.arange(len(m.box)) == i, None)
            decoded = loss._decode_boxes(number, values, one)
            wanted = 1 - loss.terms.box(decoded, one.boxes_cxcywh).clamp(max=1)
            target[cell] = wanted if m.quality is None else m.quality[i]
        entropy = binary_cross_entropy_with_logits(level[..., 4], target)
        mean += loss.balance[number] * float(entropy)
    listed = sum(len(m.box) for m in loss._list_candidates(raw, TWO))
    weights = [torch.ones(len(m.box)) if m.quality is None else m.quality for m in matches]
    boxes = {int(box) for m in matches for box in m.box}
    chosen = max(float(torch.cat(weights).sum()), len(boxes))
    assert chosen < listed
    assert float(loss(raw, TWO)["obj"]) == pytest.approx(mean * listed / chosen, rel=1e-4)


@pytest.mark.parametrize("name", ["simota", "task_aligned"])
def test_a_chosen_cell_is_a_candidate_and_has_one_box(name):
    everything = make_loss(terms=LossTerms())
    choosing = make_loss(terms=LossTerms(assigner=ASSIGNERS[name]))
    raw = make_raw()
    for candidates, chosen in zip(match(everything, raw), match(choosing, raw), strict=True):
        cells = [
            set(
                zip(*(t.tolist() for t in (m.image, m.anchor, m.row, m.column, m.box)), strict=True)
            )
            for m in (candidates, chosen)
        ]
        assert cells[1] <= cells[0]
        assert len({cell[:4] for cell in cells[1]}) == len(cells[1])


@pytest.mark.parametrize("name", ["simota", "task_aligned"])
@pytest.mark.parametrize("classes", ["bce", "focal", "varifocal"])
def test_losses_fall_to_where_the_predictions_are(name, classes):
    """Gradient descent on the raw maps: every term falls, and stays finite."""
    terms = LossTerms(assigner=ASSIGNERS[name], classes=CLASS_LOSSES[classes])
    loss, raw = make_loss(terms=terms), [level.requires_grad_() for level in make_raw()]
    optimizer = torch.optim.Adam(raw, lr=0.1)
    history = []
    for _ in range(60):
        losses = loss(raw, TWO)
        history.append({key: float(value.detach()) for key, value in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(math.isfinite(value) for step in history for value in step.values())
    assert history[-1]["box"] < 0.5 * history[0]["box"]
    assert history[-1]["obj"] < 0.5 * history[0]["obj"]


@pytest.mark.parametrize("name", ["simota", "task_aligned"])
def test_without_boxes_only_objectness_is_left(name):
    losses = make_loss(terms=LossTerms(assigner=ASSIGNERS[name]))(
        make_raw(), make_batch([], [], [])
    )
    assert float(losses["box"]) == float(losses["cls"]) == 0
    assert float(losses["obj"]) > 0


def test_the_quality_weighs_matches_and_is_the_objectness_target():
    """Task-aligned losses of one level, computed from its matches."""
    loss = make_loss(terms=LossTerms(assigner=ASSIGNERS["task_aligned"]), num_classes=4)
    raw = make_raw()
    matches = match(loss, raw)
    boxes = 0.0
    for number, m in enumerate(matches):
        if not len(m.box) or not float(m.quality.sum()):
            continue
        values = raw[number][m.image, m.anchor, m.row, m.column]
        each = loss.terms.box(loss._decode_boxes(number, values, m), m.boxes_cxcywh)
        boxes += float((each * m.quality).sum() / m.quality.sum())
        assert 0 <= float(m.quality.min()) <= float(m.quality.max()) <= 1
    assert float(loss(raw, TWO)["box"]) == pytest.approx(boxes, rel=1e-5)
