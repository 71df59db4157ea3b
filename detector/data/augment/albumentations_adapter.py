"""Transforms of the library albumentations, by name; they run after all others except erase."""

import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detector.boxes import box_sizes
from detector.data.augment.geometry import GREY, letterbox
from detector.errors import UserError
from detector.registry import nearest
from detector.structures import Sample

KEY = "bag.albumentations"  # where the user wrote it
# transforms that mirror an image, always or with some probability
MIRRORING = ("D4", "HorizontalFlip", "SquareSymmetry", "Transpose", "VerticalFlip")
_CROWD = -1  # the label of a crowd region among the boxes


class Albumentations:
    """A chain of named transforms; boxes follow the pixels.

    If the chain changes the size of the image (a crop), the result is letterboxed to the old size.

    Example:
        >>> chain = Albumentations([("GaussNoise", {"p": 0.2})])
        >>> sample = chain(sample, np.random.default_rng(0))
    """

    def __init__(self, transforms: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """`transforms`: names and arguments.

        Raises:
            UserError: an unknown name or argument, or a value that the transform rejects.
        """
        library = _import_library()
        chain = [_make_transform(library, name, arguments) for name, arguments in transforms]
        moves_boxes = any(isinstance(each, library.DualTransform) for each in chain)
        boxes = library.BboxParams(
            format="pascal_voc",
            label_fields=["labels"],
            clip=True,
            filter_invalid_bboxes=True,
            min_visibility=0.1,  # fraction of the area, as in `Affine.apply`
            min_width=2,
            min_height=2,
        )
        self.moves_boxes = moves_boxes  # the library warns of box settings that no transform uses
        self.chain = library.Compose(chain, bbox_params=boxes if moves_boxes else None)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The transformed sample, of the same size; all randomness comes from `rng`.

        Raises:
            UserError: a transform fails on this image.
        """
        self.chain.set_random_seed(int(rng.integers(2**32)))
        boxes = np.concatenate([sample.boxes_xyxy, sample.ignore_xyxy])
        crowds = np.full(len(sample.ignore_xyxy), _CROWD, np.int64)
        values = {"bboxes": boxes, "labels": np.concatenate([sample.labels, crowds])}
        try:
            result = self.chain(image=sample.image, **(values if self.moves_boxes else {}))
        except Exception as error:  # the library's own errors have no common base
            height, width = sample.image.shape[:2]
            raise UserError(
                f"{KEY}: fails on an image of {width}x{height} px: {_join_lines(error)}"
            ) from None
        image = result["image"]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
            raise UserError(
                f"{KEY}: the result has to be a uint8 image; remove ToTensorV2, Normalize, ToFloat "
                "and the like: images are scaled to [0, 1] on the device"
            )
        if self.moves_boxes:
            boxes = np.asarray(result["bboxes"], np.float32).reshape(-1, 4)
            labels = np.asarray(result["labels"]).astype(np.int64)
            real = (labels != _CROWD) & (box_sizes(boxes) > 0).all(1)
            sample = replace(
                sample,
                boxes_xyxy=boxes[real],
                labels=labels[real],
                ignore_xyxy=boxes[labels == _CROWD],
            )
        old = sample.image.shape[:2]
        sample = replace(sample, image=np.ascontiguousarray(image))
        return sample if image.shape[:2] == old else letterbox(sample, old)[0]

    def dry_run(self, height: int, width: int) -> None:
        """Applies every transform once to a blank image, with probability 1.

        Mistakes then show before a run starts, not in the middle of it.

        Raises:
            UserError: as for a call.
        """
        blank = Sample(
            image=np.full((height, width, 3), GREY, np.uint8),
            boxes_xyxy=np.array([[width / 4, height / 4, width / 2, height / 2]], np.float32),
            labels=np.zeros(1, np.int64),
            image_id=0,
            ignore_xyxy=np.zeros((0, 4), np.float32),
        )
        transforms = self.chain.transforms
        probabilities = [each.p for each in transforms]
        try:
            for each in transforms:
                each.p = 1.0
            self(blank, np.random.default_rng(0))
        finally:
            for each, probability in zip(transforms, probabilities, strict=True):
                each.p = probability


def _import_library() -> Any:
    """Imports the library, which takes one to two seconds, only when it is used."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask its server for the newest version
    import albumentations

    return albumentations


def _make_transform(library: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Makes one transform; raises UserError with a hint for mistakes in its name or arguments."""
    known = {
        each
        for each in dir(library)
        if inspect.isclass(getattr(library, each))
        and issubclass(getattr(library, each), library.BasicTransform)
        and each not in ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D")
    }
    if name not in known:
        hint = nearest(name, sorted(known))
        raise UserError(f"{KEY}: albumentations has no transform {name!r}{hint}")
    transform = getattr(library, name)
    accepted = [word for word in inspect.signature(transform.__init__).parameters if word != "self"]
    for word in arguments:
        if word not in accepted:
            raise UserError(
                f"{KEY}: {name} has no argument {word!r}{nearest(word, accepted)} "
                f"(known: {', '.join(accepted)})"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the library only warns of unknown values
            return transform(**arguments)
    except (ValueError, TypeError, UserWarning) as error:
        raise UserError(f"{KEY}: {name}: {_join_lines(error)}") from None


def _join_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and "errors.pydantic.dev" not in line)
