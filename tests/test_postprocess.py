import torch
from torchvision.ops import box_iou

from detector.postprocess import postprocess

SETTINGS = {"conf": 0.001, "nms_iou": 0.65, "max_detections": 300}


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


def test_equals_its_slow_twin():
    for seed, conf, iou, most in ((0, 0.001, 0.65, 300), (1, 0.3, 0.4, 300), (2, 0.1, 0.5, 7)):
        case = random_case(seed)
        fast = postprocess(*case, conf=conf, nms_iou=iou, max_detections=most)
        slow = reference(*case, conf, iou, most)
        for found, expected in zip(fast, slow, strict=True):
            assert found.labels.tolist() == [c for _, c, _ in expected]
            assert torch.allclose(found.scores, torch.tensor([s for s, _, _ in expected]))


def test_best_first_and_every_image_has_a_result():
    boxes, objectness, classes = random_case(0)
    objectness[1] = 0
    found = postprocess(boxes, objectness, classes, **SETTINGS)
    assert len(found) == 3
    assert found[1].boxes_xyxy.shape == (0, 4)
    assert (found[0].scores.diff() <= 0).all()


def test_one_box_can_be_of_several_classes():
    boxes = torch.tensor([[[10.0, 10.0, 4.0, 4.0]]])
    found = postprocess(boxes, torch.ones(1, 1), torch.tensor([[[0.9, 0.0, 0.8]]]), **SETTINGS)
    assert found[0].labels.tolist() == [0, 2]
    assert found[0].boxes_xyxy.tolist() == [[8.0, 8.0, 12.0, 12.0]] * 2
