import math
from dataclasses import astuple, replace
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from detector.decode import decode
from detector.losses import ASSIGNERS, BOX_LOSSES, LossTerms, Matches, YOLOLoss, assign
from detector.structures import Batch

from .test_assign import ANCHORS, STRIDES

SHAPES = [(12, 12), (6, 6), (3, 3)]


def make_loss(num_classes=4, terms=None, **changes):
    settings = {
        "gains": {"box": 1.0, "obj": 1.0, "cls": 80.0},
        "balance": (4.0, 1.0, 0.4),
        "anchor_ratio": 4.0,
    }
    return YOLOLoss(
        ANCHORS, STRIDES, num_classes=num_classes, terms=terms, **{**settings, **changes}
    )


def make_batch(boxes, labels, image_index, num_images=2, ignore=()):
    return Batch(
        images=torch.zeros(num_images, 3, 96, 96, dtype=torch.uint8),
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        image_index=torch.tensor(image_index, dtype=torch.int64),
        ignore_xyxy=torch.tensor([box for _, box in ignore], dtype=torch.float32).reshape(-1, 4),
        ignore_index=torch.tensor([image for image, _ in ignore], dtype=torch.int64),
        image_ids=list(range(num_images)),
    )


def make_raw(num_images=2, num_classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(num_images, 3, h, w, 5 + num_classes, generator=g) for h, w in SHAPES]


TWO = make_batch([[10, 12, 40, 50], [50, 20, 90, 44], [5, 60, 25, 90]], [0, 3, 1], [0, 0, 1])


def ciou(a, b):
    """Zheng et al. 2020 in plain Python; boxes are cxcywh."""
    corners = [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for cx, cy, w, h in (a, b)]
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = corners
    inter = max(min(ax2, bx2) - max(ax1, bx1), 0) * max(min(ay2, by2) - max(ay1, by1), 0)
    iou = inter / (a[2] * a[3] + b[2] * b[3] - inter)
    c2 = (max(ax2, bx2) - min(ax1, bx1)) ** 2 + (max(ay2, by2) - min(ay1, by1)) ** 2
    rho2 = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    v = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
    return iou - rho2 / c2 - v * v / (1 - iou + v)


def reference_loss(raw, batch, num_classes, balance=(4.0, 1.0, 0.4), smooth=0.0):
    """The recipe in loops, from the matches."""
    matches = assign(batch.boxes_xyxy, batch.image_index, ANCHORS, STRIDES, SHAPES, 4.0, [0.5] * 3)
    box_loss = obj_loss = cls_loss = 0.0
    for level, m, anchors, stride, weight in zip(
        raw, matches, ANCHORS, STRIDES, balance, strict=True
    ):
        target = torch.zeros(level.shape[:4])
        cious, classes = [], []
        for k in range(len(m.box)):
            i, a, r, c = (int(t[k]) for t in (m.image, m.anchor, m.row, m.column))
            s = level[i, a, r, c].sigmoid().tolist()
            w, h = (anchors[a] / stride).tolist()
            predicted = (
                2 * s[0] - 0.5 + c,
                2 * s[1] - 0.5 + r,
                4 * s[2] ** 2 * w,
                4 * s[3] ** 2 * h,
            )
            value = ciou(predicted, m.boxes_cxcywh[k].tolist())
            cious.append(value)
            target[i, a, r, c] = max(float(target[i, a, r, c]), value, 0)
            wanted = torch.full((num_classes,), smooth / 2)
            wanted[batch.labels[m.box[k]]] = 1 - smooth / 2
            classes.append(float(bce(level[i, a, r, c, 5:], wanted)))
        if cious:
            box_loss += sum(1 - value for value in cious) / len(cious)
            cls_loss += sum(classes) / len(classes)
        obj_loss += weight * float(bce(level[..., 4], target))
    return {"box": box_loss, "obj": obj_loss, "cls": cls_loss}


@pytest.mark.parametrize("smooth", [0.0, 0.1])
def test_equals_the_reference_implementation(smooth):
    for seed in range(5):
        raw = make_raw(seed=seed)
        fast = make_loss(terms=LossTerms(label_smoothing=smooth))(raw, TWO)
        slow = reference_loss(raw, TWO, 4, smooth=smooth)
        assert {k: float(v) for k, v in fast.items()} == pytest.approx(slow, rel=1e-4)


def test_the_order_of_boxes_does_not_matter_even_where_they_share_cells():
    batch = make_batch([[10, 12, 40, 50], [12, 12, 40, 52], [8, 10, 41, 50]], [0, 3, 1], [0, 0, 0])
    order = [2, 0, 1]
    permuted = replace(batch, boxes_xyxy=batch.boxes_xyxy[order], labels=batch.labels[order])
    loss, raw = make_loss(), make_raw()
    first, second = loss(raw, batch), loss(raw, permuted)
    assert {k: float(v) for k, v in first.items()} == pytest.approx(
        {k: float(v) for k, v in second.items()}
    )


def test_perfect_predictions_have_no_loss():
    batch = make_batch([[20, 22, 36, 40]], [2], [0])
    raw = make_raw()
    loss = make_loss()
    for level in raw:
        level.requires_grad_()
    optimizer = torch.optim.Adam(raw, lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        losses = loss(raw, batch)
        sum(losses.values()).backward()
        optimizer.step()
    assert losses["box"] < 0.02
    assert losses["cls"] < 0.02
    candidates = decode([level.detach() for level in raw], ANCHORS, STRIDES, conf=0.5)
    best = candidates.scores.argmax()
    assert candidates.boxes_xyxy[best].tolist() == pytest.approx([20, 22, 36, 40], abs=0.5)
    assert candidates.labels[best] == 2


def test_images_without_objects_only_have_an_objectness_loss():
    raw = [level.requires_grad_() for level in make_raw()]
    losses = make_loss()(raw, make_batch([], [], []))
    assert losses["box"] == 0
    assert losses["cls"] == 0
    sum(losses.values()).backward()
    for level in raw:
        assert (level.grad[..., 4] > 0).all()  # pushes every objectness down
        assert not level.grad[..., :4].any()


def test_one_class_has_no_class_loss():
    raw = make_raw(num_classes=1)
    assert make_loss(1)(raw, make_batch([[10, 10, 40, 40]], [0], [0]))["cls"] == 0


def test_crowds_are_neither_object_nor_background():
    ignore = [(1, [0.0, 0.0, 46.0, 96.0])]
    batch = make_batch([[10, 12, 40, 50]], [0], [1], ignore=ignore)
    raw = [level.requires_grad_() for level in make_raw()]
    matches = assign(batch.boxes_xyxy, batch.image_index, ANCHORS, STRIDES, SHAPES, 4.0, [0.5] * 3)
    make_loss()(raw, batch)["obj"].backward()
    for level, stride, m in zip(raw, STRIDES, matches, strict=True):
        taught = level.grad[1, :, :, :, 4] != 0  # [A, H, W]
        centre = (torch.arange(level.shape[3]) + 0.5) * stride
        wanted = (centre > 46).expand(taught.shape).clone()
        wanted[m.anchor, m.row, m.column] = True  # objects count wherever they are
        assert torch.equal(taught, wanted)
        assert (level.grad[0, ..., 4] != 0).all()


def test_class_gain_follows_the_number_of_classes():
    assert make_loss(20).weights["cls"] == 20.0


def test_gradient_does_not_depend_on_the_images_beside():
    """The mean over images: a batch of two equals the mean of each, where each has equal matches."""
    single = make_batch([[10, 12, 40, 50]], [1], [0], num_images=1)
    double = make_batch([[10, 12, 40, 50]] * 2, [1, 1], [0, 1])
    raw = make_raw(num_images=1)
    twice = [torch.cat([level, level]) for level in raw]
    one, two = make_loss()(raw, single), make_loss()(twice, double)
    for name in one:
        assert float(one[name]) == pytest.approx(float(two[name]), rel=1e-5)


@pytest.mark.parametrize("assigner", [None, "simota"])
def test_candidates_are_listed_on_the_host_where_the_batch_is_known_there(assigner):
    """The values are the same; the boxes on the device are not looked at to find them."""
    terms = LossTerms(assigner=None if assigner is None else ASSIGNERS[assigner])
    ignore = [(1, [0.0, 0.0, 46.0, 96.0]), (0, [3.0, 3.0, 50.0, 20.0])]
    batch = make_batch(
        [[10, 12, 40, 50], [50, 20, 90, 44], [5, 60, 25, 90]], [0, 3, 1], [0, 0, 1], ignore=ignore
    )
    unseen = torch.full_like(batch.boxes_xyxy, float("nan"))
    on_device = replace(batch, boxes_xyxy=unseen, ignore_xyxy=unseen[:2], host=batch)
    loss, raw = make_loss(terms=terms), make_raw()
    wanted, found = loss(raw, batch), loss(raw, on_device)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert [len(part.host.boxes_xyxy) for part in on_device.chunk(2)] == [2, 1]


@pytest.mark.parametrize("box", ["ciou", "siou"])
def test_nothing_in_the_loss_waits_for_the_device(box, monkeypatch):
    """Fake tensors have no numbers: an operation whose shape or branch depends on them raises."""
    batch = make_batch([[10, 12, 40, 50], [50, 20, 90, 44]], [0, 3], [0, 1])
    loss = make_loss(terms=LossTerms(box=BOX_LOSSES[box], label_smoothing=0.1))
    candidates, counts = loss._list_candidates(make_raw(), batch), []
    loss(make_raw(), batch, lambda values: counts.append(values) or values)
    mode = FakeTensorMode()
    fake = [Matches(*(mode.from_tensor(v) for v in astuple(m)[:-1])) for m in candidates]
    monkeypatch.setattr(loss, "_list_candidates", lambda *_: fake)
    loss.anchors = mode.from_tensor(loss.anchors)
    raw = [mode.from_tensor(level).requires_grad_() for level in make_raw()]
    batch = replace(batch, labels=mode.from_tensor(batch.labels), host=batch)
    counts[0] = SimpleNamespace(tolist=counts[0].clone().tolist)  # on the host in any case
    with mode:
        sum(loss(raw, batch, lambda _: counts[0]).values()).backward()
    assert all(level.grad is not None for level in raw)
