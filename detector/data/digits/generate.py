"""The embedded demonstration data set: handwritten digits, drawn as stickers on photographs.

It is made on first use, without a network, from files in the scikit-learn and scikit-image wheels, and
written as COCO json and jpeg. Read `ensure_digits`, `make_digits`, `draw_image`.

The same versions give the same bytes on every machine: random numbers come only from
`numpy.random.Generator`s seeded by (seed, split, image), and pixels only from integer arithmetic
and OpenCV's bit-exact resize, so that neither threads nor SIMD width matter.
"""

import functools
import hashlib
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from detector.data.digits.credits import CREDITS, PHOTOS, Photo
from detector.data.digits.make_once import make_once
from detector.data.digits.render import Sticker, enlarge_glyphs, paste, render_sticker
from detector.errors import UserError

__all__ = ["CREDITS", "NAMES", "NUM_TRAIN", "NUM_VAL", "ensure_digits", "make_digits"]

NAMES = tuple("0123456789")  # COCO category ids 1..10
NUM_TRAIN = 1200
NUM_VAL = 240
SIZE = 320  # width and height of an image, px
MIN_SIDE, MAX_SIDE = 10, 140  # longer side of a box, px; log-uniform
GENERATOR_VERSION = 1  # increase it when any byte of the output changes
SPLITS = ("train", "val")

_EMPTY = 0.02  # fraction of images without a digit
_MAX_COUNT = 16  # digits per image: uniform in 1.._MAX_COUNT, 8.3 on average
_MAX_OVERLAP = 0.08  # intersection of two boxes over the smaller one
_MAX_ROTATION = 20.0  # degrees, +-: a 6 stays a 6
_ASPECT = (0.8, 1.25)  # stretch of the width
_VAL_PHOTO = 3 / 8  # fraction of each photo, along its longer side, used only for val
_VAL_DIGITS = 0.2  # fraction of each class's digits used only for val
_MIN_CROP = 160  # px of a photo: enlarged at most 2 times
_MAX_CROP = 640  # px: the bit-exact resize is bilinear and would alias beyond half size
_JPEG_QUALITY = 92
_MANIFEST = "manifest.json"
_PALETTE = (  # RGB: vivid, and bright against the dark edge
    (255, 72, 66),
    (255, 138, 28),
    (255, 214, 38),
    (176, 232, 48),
    (62, 214, 96),
    (40, 222, 208),
    (64, 180, 255),
    (112, 138, 255),
    (188, 122, 255),
    (255, 98, 190),
    (250, 250, 245),
)


@dataclass(frozen=True, slots=True)
class Source:
    """Digits and photographs of one split.

    Attributes:
        glyphs: int32 [1797, 160, 160], all enlarged glyphs.
        digits: for each of the ten classes, the indices into `glyphs` of this split.
        regions: uint8 [h, w, 3] BGR, the part of each photo for this split.
    """

    glyphs: np.ndarray
    digits: list[np.ndarray]
    regions: list[np.ndarray]


def ensure_digits(root: Path) -> Path:
    """Makes the data set in `root` unless it exists; returns `root`.

    Raises:
        UserError: the folder contains something else.
    """
    manifest = _read_manifest(root)
    if manifest is not None and manifest["generator"] == GENERATOR_VERSION:
        return root
    make_once(
        root,
        make_digits,
        is_made=lambda: _read_manifest(root) is not None,
        replace=manifest is not None,
    )
    return root


def make_digits(
    root: Path, num_train: int = NUM_TRAIN, num_val: int = NUM_VAL, seed: int = 0
) -> None:
    """Writes the data set: COCO's layout, a manifest, CREDITS.md.

    Args:
        root: a folder that does not exist yet.
        num_train, num_val: number of images.
        seed: changes the images, but not how digits and photos are split.
    """
    (root / "annotations").mkdir(parents=True)
    sources = _load_sources()
    digest = hashlib.sha256()
    bar = tqdm(total=num_train + num_val, desc="making digits", unit="image", disable=None)
    with bar:
        for number, (split, count) in enumerate(zip(SPLITS, (num_train, num_val), strict=True)):
            folder = root / f"{split}2017"
            folder.mkdir()
            tree = _make_empty_tree()
            draw = functools.partial(_draw_jpeg, sources[number], [seed, number])
            with ThreadPoolExecutor() as pool:  # results in order; numpy and OpenCV release the GIL
                for image_id, (data, boxes, labels) in enumerate(pool.map(draw, range(count)), 1):
                    name = f"{image_id:06d}.jpg"
                    (folder / name).write_bytes(data)
                    digest.update(data)
                    _add_annotations(tree, image_id, name, boxes, labels)
                    bar.update()
            text = json.dumps(tree)
            (root / "annotations" / f"instances_{split}2017.json").write_text(text)
            digest.update(text.encode())
    (root / "CREDITS.md").write_text(CREDITS, encoding="utf-8")
    packages = ("numpy", "opencv-python-headless", "scikit-learn", "scikit-image")
    manifest = {
        "generator": GENERATOR_VERSION,
        "seed": seed,
        "images": {"train": num_train, "val": num_val},
        "versions": {name: version(name) for name in packages},
        "sha256": digest.hexdigest(),
    }
    (root / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _draw_jpeg(
    source: Source, seeds: list[int], number: int
) -> tuple[bytes, list[tuple[int, int, int, int]], list[int]]:
    """Draws image `number`; returns the jpeg, its boxes and labels."""
    image, boxes, labels = draw_image(np.random.default_rng([*seeds, number]), source)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return cv2.imencode(".jpg", image, quality)[1].tobytes(), boxes, labels


def draw_image(
    rng: np.random.Generator, source: Source
) -> tuple[np.ndarray, list[tuple[int, int, int, int]], list[int]]:
    """Draws one image: a crop of a photo with digits on it.

    Returns:
        uint8 [320, 320, 3] BGR; boxes (x1, y1, x2, y2) in integer px, exclusive at the right and at
        the bottom; their labels 0..9. Larger digits first: smaller ones lie on top.
    """
    image = _crop_background(rng, source)
    count = 0 if rng.random() < _EMPTY else int(rng.integers(1, _MAX_COUNT + 1))
    sides = np.round(MIN_SIDE * (MAX_SIDE / MIN_SIDE) ** rng.random(count)).astype(int)
    stickers: list[Sticker] = []
    labels: list[int] = []
    for side in sorted(sides.tolist(), reverse=True):
        label = int(rng.integers(10))
        glyph = source.glyphs[rng.choice(source.digits[label])]
        degrees = float(rng.uniform(-_MAX_ROTATION, _MAX_ROTATION))
        stickers.append(render_sticker(glyph, side, degrees, float(rng.uniform(*_ASPECT))))
        labels.append(label)
    boxes = _place_stickers(rng, stickers)
    for sticker, (x1, y1, _, _) in zip(stickers, boxes, strict=True):
        colour = _PALETTE[rng.integers(len(_PALETTE))]
        paste(image, sticker, x1, y1, colour[::-1])
    return image, boxes, labels


def _crop_background(rng: np.random.Generator, source: Source) -> np.ndarray:
    """Crops a random square of a photo and resizes it to [320, 320, 3]."""
    region = source.regions[rng.integers(len(source.regions))]
    largest = min(*region.shape[:2], _MAX_CROP)
    side = int(rng.integers(_MIN_CROP, largest + 1))
    y, x = (int(rng.integers(length - side + 1)) for length in region.shape[:2])
    crop = region[y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = cv2.flip(crop, 1)
    return cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR_EXACT)


def _place_stickers(
    rng: np.random.Generator, stickers: list[Sticker]
) -> list[tuple[int, int, int, int]]:
    """Draws a box for every sticker, inside the image and with at most `_MAX_OVERLAP`.

    Draws the whole layout again if one does not fit: dropping it would make large ones rarer.
    """
    while True:
        placed: list[tuple[int, int, int, int]] = []
        for sticker in stickers:
            width, height = sticker.box[2] - sticker.box[0], sticker.box[3] - sticker.box[1]
            for _ in range(50):
                x, y = (int(rng.integers(SIZE - length + 1)) for length in (width, height))
                box = (x, y, x + width, y + height)
                if all(_compute_overlap(box, other) <= _MAX_OVERLAP for other in placed):
                    placed.append(box)
                    break
            else:
                break
        if len(placed) == len(stickers):
            return placed


def _compute_overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Intersection area over the smaller box's area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _load_sources() -> tuple[Source, Source]:
    """Loads digits and parts of photos; train and val have no digit and no pixel in common."""
    from sklearn.datasets import load_digits  # a second, which every command would pay

    images, targets = load_digits(return_X_y=True)
    glyphs = enlarge_glyphs(images.reshape(-1, 8, 8))
    rng = np.random.default_rng(0)
    digits: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label in range(10):
        order = rng.permutation(np.flatnonzero(targets == label))
        cut = round(len(order) * _VAL_DIGITS)
        digits[0].append(order[cut:])
        digits[1].append(order[:cut])
    regions: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for image in map(_read_photo, PHOTOS):
        axis = int(image.shape[1] > image.shape[0])
        cut = round(image.shape[axis] * (1 - _VAL_PHOTO))
        for part, region in zip(regions, np.split(image, [cut], axis), strict=True):
            part.append(region)
    return Source(glyphs, digits[0], regions[0]), Source(glyphs, digits[1], regions[1])


def _read_photo(photo: Photo) -> np.ndarray:
    spec = importlib.util.find_spec(photo.package)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path(photo.package)
    image = cv2.imread(str(folder / photo.path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(
            f"{folder / photo.path}: cannot read this photo, which the digits data set needs; "
            f"reinstall scikit-learn and scikit-image as requirements.txt lists them"
        )
    return image


def _make_empty_tree() -> dict[str, Any]:
    return {
        "info": {"description": "digits: handwritten digits on photographs; see CREDITS.md"},
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)],
    }


def _add_annotations(
    tree: dict[str, Any],
    image_id: int,
    name: str,
    boxes: list[tuple[int, int, int, int]],
    labels: list[int],
) -> None:
    tree["images"].append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        tree["annotations"].append(
            {
                "id": len(tree["annotations"]) + 1,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
        )


def _read_manifest(root: Path) -> dict[str, Any] | None:
    """Reads the manifest of a data set made by this module; None if there is none."""
    try:
        manifest = json.loads((root / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "generator" in manifest else None
