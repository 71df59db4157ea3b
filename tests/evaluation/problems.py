"""Random problems for the backends: ties, crowds, empty images and classes, boxes of all sizes."""

import numpy as np

from detector.evaluation import GroundTruth, Results


def make_problem(seed, *, images=6, classes=3, per_image=6, ids_from=1):
    """(content of COCO's json, ground truth, results)."""
    rng = np.random.default_rng(seed)
    image_ids = (rng.permutation(images * 3)[:images] + 1).tolist()
    category_ids = (rng.permutation(classes * 4)[:classes] + 1).tolist()
    annotations = []
    for image in image_ids:
        for _ in range(int(rng.integers(0, per_image + 1))):
            x, y = rng.integers(0, 200, 2).tolist()
            w, h = np.exp(rng.uniform(1.5, 5.5, 2)).round().tolist()
            annotations.append(
                {
                    "id": ids_from + len(annotations),
                    "image_id": image,
                    "category_id": int(rng.choice(category_ids[: max(classes - 1, 1)])),
                    "bbox": [x, y, w, h],
                    "area": float(w * h * rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    tree = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 500, "height": 500} for i in image_ids
        ],
        "categories": [{"id": i, "name": f"c{i}"} for i in category_ids],
        "annotations": annotations,
    }
    ground_truth = GroundTruth.from_coco(tree, category_ids)
    return tree, ground_truth, make_results(ground_truth, rng)


def make_results(ground_truth, rng, noise=4.0):
    """Ground truth moved a little, some twice, some with another class; and random boxes."""
    count = len(ground_truth.image)
    source = rng.integers(0, count, count * 2) if count else np.zeros(0, int)
    moved = ground_truth.boxes_xywh[source] + rng.normal(0, noise, (len(source), 4)).round()
    label = ground_truth.label[source].copy()
    other = rng.random(len(source)) < 0.1
    label[other] = rng.integers(0, len(ground_truth.names), int(other.sum()))
    extra = int(rng.integers(0, 12))
    random_boxes = np.exp(rng.uniform(1, 5, (extra, 4)))
    image = [ground_truth.image[source], rng.integers(0, len(ground_truth.image_ids), extra)]
    score = rng.uniform(0, 1, len(source) + extra)
    return Results(
        np.concatenate(image),
        np.concatenate([label, rng.integers(0, len(ground_truth.names), extra)]),
        np.abs(np.concatenate([moved, random_boxes])),
        score.round(1) if rng.random() < 0.7 else score,  # ties
    )
