import torch
from torchvision.ops import box_convert, box_iou

from detector.decode import Decoder, decode
from detector.postprocess import suppress, suppress_darknet
from detector.structures import Candidates
from tests.slow_inference import candidates_of, decode_all

ANCHORS = torch.tensor([[[20.0, 30.0], [12.0, 9.0]], [[40.0, 50.0], [60.0, 30.0]]])
SETTINGS = {"nms_iou": 0.65, "max_detections": 300}


def random_case(seed, images=3, boxes=60, classes=4):
    g = torch.Generator().manual_seed(seed)
    centre = torch.rand(images, boxes, 2, generator=g) * 60
    size = 10 + torch.rand(images, boxes, 2, generator=g) * 20
    return (
        torch.cat([centre, size], -1),
        torch.rand(images, boxes, generator=g),
        torch.rand(images, boxes, classes, generator=g),
    )


def reference(boxes_cxcywh, objectness, classes, conf, nms_iou, max_detections):
    """Greedy suppression in loops; per image the list of (score, label, box number)."""
    results = []
    for image in range(len(boxes_cxcywh)):
        half = boxes_cxcywh[image, :, 2:] / 2
        centre = boxes_cxcywh[image, :, :2]
        corners = torch.cat([centre - half, centre + half], 1)
        candidates = sorted(
            (
                (float(objectness[image, n] * classes[image, n, c]), c, n)
                for n in range(classes.shape[1])
                for c in range(classes.shape[2])
                if objectness[image, n] > conf
                and objectness[image, n] * classes[image, n, c] > conf
            ),
            reverse=True,
        )
        kept = []
        for score, c, n in candidates:
            rivals = [m for _, other, m in kept if other == c]
            if not rivals or box_iou(corners[n : n + 1], corners[rivals]).max() <= nms_iou:
                kept.append((score, c, n))
        results.append(kept[:max_detections])
    return results


def test_equals_the_reference_implementation():
    for seed, conf, iou, most in ((0, 0.001, 0.65, 300), (1, 0.3, 0.4, 300), (2, 0.1, 0.5, 7)):
        case = random_case(seed)
        fast = suppress(candidates_of(*case, conf), 3, nms_iou=iou, max_detections=most)
        slow = reference(*case, conf, iou, most)
        for detections, expected in zip(fast, slow, strict=True):
            assert detections.labels.tolist() == [c for _, c, _ in expected]
            assert torch.allclose(detections.scores, torch.tensor([s for s, _, _ in expected]))


def make_raw(seed, *, images=3, classes=5, shift=-3.0):
    g = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, 2, side, side, 5 + classes, generator=g) * 2 + shift for side in (8, 4)
    ]


def test_decoding_likely_cells_only_equals_decoding_all():
    for seed in range(20):
        raw, decoder = make_raw(seed), Decoder("exp" if seed % 2 else "sigmoid", (1.2,))
        settings = {"nms_iou": 0.5, "max_detections": 20}
        fast = suppress(decode(raw, ANCHORS, (8, 16), decoder, conf=0.01), 3, **settings)
        every = candidates_of(*decode_all(raw, ANCHORS, (8, 16), decoder), conf=0.01)
        slow = suppress(every, 3, **settings)
        for a, b in zip(fast, slow, strict=True):
            assert 0 < len(a.scores) <= 20
            assert torch.equal(a.labels, b.labels)
            assert torch.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-4)
            assert torch.allclose(a.scores, b.scores)


def test_an_image_alone_gives_the_same_as_in_a_batch():
    raw = make_raw(3, images=6)
    settings = {"nms_iou": 0.5, "max_detections": 30}
    together = suppress(decode(raw, ANCHORS, (8, 16), conf=0.01), 6, **settings)
    for number in range(6):
        one = [level[number : number + 1] for level in raw]
        (alone,) = suppress(decode(one, ANCHORS, (8, 16), conf=0.01), 1, **settings)
        for name in ("boxes_xyxy", "scores", "labels"):
            assert torch.equal(getattr(alone, name), getattr(together[number], name))


def test_the_best_detections_are_right_among_hundreds_of_overlapping_ones():
    """The best 200 candidates are of one object: those of the others rank below them."""
    g = torch.Generator().manual_seed(0)
    crowd = torch.tensor([50.0, 50, 90, 90]) + torch.rand(200, 4, generator=g)
    corner = torch.arange(40)[:, None] * torch.tensor([100.0, 0]) + 200
    rest = torch.cat([corner, corner + 30], 1)
    boxes, scores = torch.cat([rest, crowd]), torch.linspace(0.1, 0.9, 240)
    candidates = Candidates(torch.zeros(240).long(), boxes, scores, torch.zeros(240).long())
    (kept,) = suppress(candidates, 1, nms_iou=0.5, max_detections=5)
    assert kept.boxes_xyxy.tolist() == [boxes[239].tolist(), *rest.flip(0)[:4].tolist()]


def test_huge_boxes_do_not_cost_the_others_precision():
    """A box of 1e10 px, as an untrained exp decoder gives, must not cost the others precision."""
    pair = torch.tensor([[10.0, 10, 20, 20], [10.0, 10.1, 20, 20.1]])
    boxes = torch.cat([pair, torch.tensor([[-1e10, -1e10, 1e10, 1e10]])])
    candidates = Candidates(
        torch.zeros(3).long(), boxes, torch.tensor([0.9, 0.8, 0.99]), torch.tensor([3, 3, 79])
    )
    (kept,) = suppress(candidates, 1, nms_iou=0.97, max_detections=9)
    assert kept.labels.tolist() == [79, 3]
    (kept,) = suppress(candidates, 1, nms_iou=0.99, max_detections=9)
    assert kept.labels.tolist() == [79, 3, 3]


def test_best_first_and_every_image_has_a_result():
    boxes, objectness, classes = random_case(0)
    objectness[1] = 0
    detections = suppress(candidates_of(boxes, objectness, classes, 0.001), 3, **SETTINGS)
    assert len(detections) == 3
    assert detections[1].boxes_xyxy.shape == (0, 4)
    assert (detections[0].scores.diff() <= 0).all()


def test_one_box_can_be_of_several_classes():
    (raw,) = torch.zeros(1, 1, 1, 1, 8)[None]  # one cell, three classes
    raw[..., 4:] = torch.tensor([9.0, 2, -99, 1])
    anchors = torch.tensor([[[4.0, 4.0]]])
    (detections,) = suppress(decode([raw], anchors, (20,), conf=0.001), 1, **SETTINGS)
    assert detections.labels.tolist() == [0, 2]
    assert detections.boxes_xyxy.tolist() == [[8.0, 8.0, 12.0, 12.0]] * 2


def darknet_reference(boxes, scores, threshold=0.6, beta=0.6):
    """The docstring of `suppress_darknet` in loops: indices kept of one class, best first."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        for j in kept:
            (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes[i], boxes[j]
            width, height = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
            inter = max(width, 0) * max(height, 0)
            union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
            distance = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
            around = (max(ax2, bx2) - min(ax1, bx1)) ** 2 + (max(ay2, by2) - min(ay1, by1)) ** 2
            if inter / union - (distance / around) ** beta > threshold:
                break
        else:
            kept.append(i)
    return kept


def test_darknets_nms_equals_the_reference_implementation():
    generator = torch.Generator().manual_seed(5)
    suppressed = 0
    for _ in range(20):
        n = 40
        centre = 50 + 6 * torch.rand(1, n, 2, generator=generator)
        boxes = torch.cat([centre, 20 + 6 * torch.rand(1, n, 2, generator=generator)], -1)
        objectness = torch.rand(1, n, generator=generator)
        classes = torch.zeros(1, n, 2)
        classes[0, torch.arange(n), torch.arange(n) % 2] = 0.9
        candidates = candidates_of(boxes, objectness, classes, 0.001)
        (detections,) = suppress_darknet(candidates, 1)
        corners = box_convert(boxes[0], "cxcywh", "xyxy")
        expected = set()
        for label in (0, 1):
            mine = list(range(label, n, 2))
            kept = darknet_reference(corners[mine].tolist(), objectness[0, mine].tolist())
            expected |= {tuple(corners[mine[k]].tolist()) for k in kept}
        assert {tuple(box) for box in detections.boxes_xyxy.tolist()} == expected
        assert (detections.scores.diff() <= 0).all()
        suppressed += n - len(expected)
    assert suppressed > 100


def test_darknet_keeps_neighbours_that_plain_nms_suppresses():
    """IoU 0.67, but the centres apart."""
    boxes = torch.tensor([[[50.0, 50.0, 40.0, 40.0], [58.0, 50.0, 40.0, 40.0]]])
    scores, one = torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, 1)
    candidates = candidates_of(boxes, scores, one, 0.001)
    assert len(suppress_darknet(candidates, 1)[0].scores) == 2
    assert len(suppress(candidates, 1, nms_iou=0.6, max_detections=300)[0].scores) == 1
