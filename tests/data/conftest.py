"""One small data set, written by hand in three formats."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

NAMES = ("person", "cat", "fire truck")
# file: width, height, [(label, xmin, ymin, xmax, ymax as VOC has them, difficult)]
SETS = {
    "train": {
        "a.jpg": (100, 60, [(1, 11, 6, 50, 40, 0), (0, 1, 1, 100, 60, 0), (2, 3, 4, 9, 31, 1)]),
        "b.b.png": (41, 83, [(2, 5, 7, 41, 83, 0)]),
        "c d.jpg": (64, 48, []),
    },
    "val": {
        "e.jpg": (99, 70, [(0, 20, 20, 90, 61, 0), (1, 1, 30, 13, 70, 0)]),
        "f.jpg": (33, 57, [(2, 2, 2, 30, 30, 1), (2, 4, 4, 22, 50, 0)]),
    },
}


def draw(path, width, height, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def voc_xml(name, width, height, boxes):
    objects = "".join(
        f"<object><name>{NAMES[label]}</name><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        f"<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for label, x1, y1, x2, y2, difficult in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def write_voc(root):
    for split, images in SETS.items():
        for number, (name, (width, height, boxes)) in enumerate(images.items()):
            draw(root / "JPEGImages" / name, width, height, number)
            xml = root / "Annotations" / f"{Path(name).stem}.xml"
            xml.parent.mkdir(exist_ok=True)
            xml.write_text(voc_xml(name, width, height, boxes))
        lists = root / "ImageSets" / "Main"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"{Path(n).stem}\n" for n in images))
    return f"names: [{', '.join(NAMES)}]\n"


def write_yolo(root):
    for split, images in SETS.items():
        for number, (name, (width, height, boxes)) in enumerate(images.items()):
            draw(root / "images" / split / name, width, height, number)
            lines = [
                f"{label} {(x1 - 1 + x2) / 2 / width:.6f} {(y1 - 1 + y2) / 2 / height:.6f} "
                f"{(x2 - x1 + 1) / width:.6f} {(y2 - y1 + 1) / height:.6f}\n"
                for label, x1, y1, x2, y2, difficult in boxes
                if not difficult
            ]
            txt = root / "labels" / split / f"{Path(name).stem}.txt"
            txt.parent.mkdir(parents=True, exist_ok=True)
            txt.write_text("".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    return f"train: images/train\nval: images/val\nnc: 3\nnames:\n{names}"


def write_coco(root):
    ids = (7, 90, 3)
    for split, images in SETS.items():
        annotations = [
            (number, label, [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], difficult)
            for number, (_, _, boxes) in enumerate(images.values(), 1)
            for label, x1, y1, x2, y2, difficult in boxes
        ]
        tree = {
            "images": [
                {"id": number, "file_name": name, "width": width, "height": height}
                for number, (name, (width, height, _)) in enumerate(images.items(), 1)
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": ids[label],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                }
                for number, (image, label, box, crowd) in enumerate(annotations, 1)
            ],
            "categories": [{"id": i, "name": n} for i, n in zip(ids, NAMES, strict=True)],
        }
        for number, (name, (width, height, _)) in enumerate(images.items()):
            draw(root / f"{split}2017" / name, width, height, number)
        path = root / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(tree))
    return f"root: .\nnames: [{', '.join(NAMES)}]\n"


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}


@pytest.fixture
def written(tmp_path):
    """written("yolo") -> the data YAML, which does not name the format."""

    def write(form):
        root = tmp_path / form
        root.mkdir()
        path = root / "data.yaml"
        path.write_text(WRITERS[form](root))
        return path

    return write
