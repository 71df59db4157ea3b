"""A data set of 640x480 JPEGs for the loader benchmark, made from the embedded one."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from detector.data import Index, load_data_yaml, read_split

SIZE = 320  # of the embedded images, pixels
TOP = 80  # rows cropped off the top of two stacked images, and off their bottom


def make_benchmark_images(folder: Path, count: int) -> Path:
    """Writes `count` JPEGs, each of four images of the embedded data set; returns the data YAML."""
    index = read_split(*load_data_yaml("digits.yaml"), "train")
    names = [{"id": label + 1, "name": name} for label, name in enumerate(index.names)]
    tree: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": names}
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        (folder / f"{split}2017").mkdir()
    for number in tqdm(range(count), desc="making images", disable=None, leave=False):
        parts = [(4 * number + place) % len(index) for place in range(4)]
        name = f"{number:04d}.jpg"
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        cv2.imwrite(str(folder / "train2017" / name), _join_images(index, parts), quality)
        tree["images"].append({"id": number + 1, "file_name": name, "width": 640, "height": 480})
        _add_annotations(tree["annotations"], index, parts, number + 1)
    for split in ("train", "val"):
        content = tree if split == "train" else {**tree, "images": [], "annotations": []}
        path = folder / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    yaml = folder / "data.yaml"
    yaml.write_text("format: coco\nroot: .\n", encoding="utf-8")
    return yaml


def _join_images(index: Index, parts: list[int]) -> np.ndarray:
    """Four images in two rows, the top and the bottom cropped off; uint8 [480, 640, 3], BGR."""
    images = [cv2.imread(str(index.folder / str(index.files[part]))) for part in parts]
    rows = [np.hstack([image for image in images[i : i + 2] if image is not None]) for i in (0, 2)]
    return np.vstack(rows)[TOP : TOP + 480]


def _add_annotations(annotations: list[Any], index: Index, parts: list[int], image_id: int) -> None:
    """Adds the boxes that are not cut off at the top or at the bottom."""
    for place, part in enumerate(parts):
        rows = slice(index.starts[part], index.starts[part + 1])
        for (x1, y1, x2, y2), label in zip(
            index.boxes_xyxy[rows].tolist(), index.labels[rows].tolist(), strict=True
        ):
            box = [x1 + place % 2 * SIZE, y1 + place // 2 * SIZE - TOP, x2 - x1, y2 - y1]
            if 0 <= box[1] <= 480 - box[3]:
                annotation = {"id": len(annotations) + 1, "image_id": image_id}
                annotations.append(
                    {**annotation, "category_id": label + 1, "bbox": box, "iscrowd": 0}
                )
