import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.errors import UserError
from detector.evaluation import METRICS, CocoAP, format_metrics
from detector.structures import Detections, ImageDetections


def make_ground_truth(path, rng, *, ids_from=1, images=6, with_area=True):
    """A random ground truth, boxes of all sizes, some crowds."""
    annotations = []
    for image in range(1, images + 1):
        for _ in range(int(rng.integers(0, 7))):
            x, y = rng.uniform(0, 200, 2)
            w, h = np.exp(rng.uniform(1.5, 5.5, 2))
            entry = {
                "id": ids_from + len(annotations),
                "image_id": image * 11,
                "category_id": int(rng.choice([3, 7, 90])),
                "bbox": [x, y, w, h],
            }
            if with_area:
                entry |= {"area": w * h, "iscrowd": int(rng.random() < 0.1)}
            annotations.append(entry)
    tree = {
        "images": [
            {"id": i * 11, "file_name": "", "width": 500, "height": 500}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": str(i)} for i in (3, 7, 90)],
        "annotations": annotations,
    }
    path.write_text(json.dumps(tree))
    return tree


def make_detections(tree, rng, noise=10.0):
    """Ground truth moved a little, and random boxes."""
    label_of = {3: 0, 7: 1, 90: 2}
    detections = []
    for image in tree["images"]:
        mine = [a for a in tree["annotations"] if a["image_id"] == image["id"]]
        boxes = [np.array(a["bbox"]) + rng.normal(0, noise, 4) for a in mine]
        labels = [label_of[a["category_id"]] for a in mine]
        for _ in range(3):
            boxes.append(rng.uniform(0, 100, 4))
            labels.append(int(rng.integers(3)))
        xywh = np.abs(np.array(boxes)).reshape(-1, 4)
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        detections.append(
            ImageDetections(
                image["id"],
                Detections(
                    torch.tensor(corners),
                    torch.tensor(rng.uniform(0, 1, len(boxes)).round(1)),  # ties
                    torch.tensor(labels),
                ),
            )
        )
    return detections


def evaluate_through_files(path, detections, tmp_path):
    """pycocotools as COCO's own example uses it, through files."""
    rows = []
    for each in detections:
        for (x1, y1, x2, y2), score, label in zip(
            each.detections.boxes_xyxy.tolist(),
            each.detections.scores.tolist(),
            each.detections.labels.tolist(),
            strict=True,
        ):
            rows.append(
                {
                    "image_id": each.image_id,
                    "category_id": (3, 7, 90)[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    (tmp_path / "results.json").write_text(json.dumps(rows))
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(path))
        coco_ap = COCOeval(
            ground_truth, ground_truth.loadRes(str(tmp_path / "results.json")), "bbox"
        )
        coco_ap.evaluate(), coco_ap.accumulate(), coco_ap.summarize()
    return dict(zip(METRICS, coco_ap.stats, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocotools_through_files(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tree = make_ground_truth(tmp_path / "annotations.json", rng)
    detections = make_detections(tree, rng)
    ours = CocoAP(tmp_path / "annotations.json", [3, 7, 90])(detections)
    assert ours == evaluate_through_files(tmp_path / "annotations.json", detections, tmp_path)


def test_perfect_detections_score_one_in_any_order(tmp_path, rng):
    tree = make_ground_truth(tmp_path / "annotations.json", rng, with_area=False, ids_from=0)
    perfect = [
        ImageDetections(f.image_id, f.detections) for f in make_detections(tree, rng, noise=0.0)
    ]
    perfect = [
        ImageDetections(
            f.image_id,
            Detections(
                *(getattr(f.detections, n)[:-3] for n in ("boxes_xyxy", "scores", "labels"))
            ),
        )
        for f in perfect
    ]
    coco_ap = CocoAP(tmp_path / "annotations.json", [3, 7, 90])
    metrics = coco_ap(perfect)
    assert metrics["AP"] == pytest.approx(1.0)  # an annotation with id 0 counts, too
    assert coco_ap(perfect[::-1]) == metrics


def test_no_detections_give_zero_and_images_without_any_count(tmp_path, rng):
    tree = make_ground_truth(tmp_path / "annotations.json", rng)
    coco_ap = CocoAP(tmp_path / "annotations.json", [3, 7, 90])
    assert coco_ap([])["AP"] == 0
    detections = make_detections(tree, rng, noise=0.0)
    assert coco_ap(detections[:3])["AR100"] < coco_ap(detections)["AR100"]


def test_a_size_without_ground_truth_has_no_number(tmp_path):
    tree = {
        "images": [{"id": 1, "file_name": "", "width": 9, "height": 9}],
        "categories": [{"id": 3, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5]}],
    }
    (tmp_path / "t.json").write_text(json.dumps(tree))
    metrics = CocoAP(tmp_path / "t.json", [3])([])
    assert metrics["APl"] == -1
    lines = format_metrics(metrics).splitlines()
    assert len(lines) == 12
    assert "none" in lines[5]


def test_an_unknown_image_id_is_refused(tmp_path, rng):
    make_ground_truth(tmp_path / "annotations.json", rng)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    with pytest.raises(UserError, match="image id 5"):
        CocoAP(tmp_path / "annotations.json", [3, 7, 90])([ImageDetections(5, none)])


def test_nothing_is_printed(tmp_path, rng, capfd):
    tree = make_ground_truth(tmp_path / "annotations.json", rng)
    CocoAP(tmp_path / "annotations.json", [3, 7, 90])(make_detections(tree, rng))
    assert capfd.readouterr().out == ""
