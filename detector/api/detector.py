"""`Detector`: a trained model that takes images of any kind and returns their detections."""

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector import structures
from detector.api.detections import Detections
from detector.api.image_inputs import Channels, InputImage, is_single, iterate_images
from detector.api.tiles import merge_tiles, plan_tiles
from detector.build import build_hardware, build_placement, build_postprocess
from detector.data import LoadedSample, UnreadableImage, collate, list_images, sample_without_labels
from detector.errors import UserError, read_regular_file
from detector.evaluation import make_tta_views, predict
from detector.export import ExportedModel
from detector.nn import fuse_batch_norms
from detector.postprocess import Postprocess
from detector.structures import Candidates
from detector.weights.darknet import DarknetOptions
from detector.weights.load import load_model

CONF = 0.25  # default confidence threshold
TILE_BATCH = 8  # tiles that the network computes at once
Thresholds = float | dict[str, float] | str | Path


class Detector:
    """A trained detector.

    It may be called from several threads at once.

    Attributes:
        names: the class names, by label.
        config: with which it was trained, and with the settings of this detector.
        hardware: where it runs.
        notes: what was assumed about its file, a line each.

    Example:
        >>> model = Detector("runs/digits/best.pt")  # doctest: +SKIP
        >>> found = model("photo.jpg")  # doctest: +SKIP
        >>> found.boxes_xyxy, found.scores, found.labels  # doctest: +SKIP
    """

    def __init__(
        self,
        weights: str | Path,
        *,
        cfg: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        size: int | None = None,
        conf: Thresholds = CONF,
        classes: Sequence[str | int] | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool = False,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        tile: int | None = None,
        fuse: bool = True,
        darknet: DarknetOptions | None = None,
    ) -> None:
        """
        Args:
            weights: a run folder, its best.pt, a darknet .weights, or a file of tools/export.py:
                .onnx, OpenVINO's .xml, .pt2.
            cfg: the network of a .weights: a name in configs/, or darknet's own .cfg.
            device: "cpu", "cuda", "cuda:1" ...; auto takes a GPU if there is one.
            precision: "fp32", "bf16", "fp16" or auto, the fastest of the device.
            size: width and height that images are scaled to, pixels; default: that of training.
            conf: confidence threshold in [0, 1]; or one for each class: a dict by name, or the path of
                a report's thresholds.json. Classes without one have `CONF`.
            classes: names or numbers of the classes to detect; default: all.
            nms_iou, max_detections: of the suppression; default: the config's.
            class_agnostic: a box also suppresses boxes of other classes.
            scales, flip: test-time augmentation: also detect at these scales, and mirrored.
            tile: detect in overlapping tiles of this width and height, pixels, and in the whole image:
                for small objects in large images.
            fuse: fold BatchNorm into the convolutions: faster; scores agree to 1e-4.
            darknet: how to read a .weights file.

        Raises:
            UserError: the file cannot be used, or a value is out of range.
        """
        path = Path(weights)
        path = path / "best.pt" if path.is_dir() else path
        words = _make_words(device, precision, size, nms_iou, max_detections, scales, flip=flip)
        loaded = load_model(path, words, cfg=cfg, options=darknet)
        self.names, self.config, self.notes = loaded.names, loaded.config, loaded.notes
        self.hardware = build_hardware(self.config)
        model = loaded.model.eval()
        if fuse and not isinstance(model, ExportedModel):
            model = fuse_batch_norms(model)
        self._model = self.hardware.place(model)
        self._placement = build_placement(self.config)
        self._views = make_tta_views(self.config.eval.scales, flip=self.config.eval.flip)
        self._wanted = None if classes is None else _find_labels(classes, self.names)
        self._agnostic, self._tile = class_agnostic, tile
        if tile is not None and tile < 32:
            raise UserError(f"tile={tile}: expected at least 32 pixels")
        self.set_thresholds(conf)

    def set_thresholds(self, conf: Thresholds) -> None:
        """Sets the confidence thresholds; see `__init__`.

        Raises:
            UserError: no number in [0, 1], an unknown class, or a file that cannot be read.
        """
        self._thresholds = torch.tensor(_read_thresholds(conf, self.names))
        lowest = float(self._thresholds.min()) if len(self._thresholds) else CONF
        self._postprocess = _restrict(
            build_postprocess(self.config.eval, lowest), self._wanted, self._agnostic
        )

    def __call__(
        self,
        images: Any,
        *,
        channels: Channels | None = None,
        batch_size: int = 8,
        urls: bool = False,
    ) -> Any:
        """Detects objects in one image or in many.

        Args:
            images: a path; a folder of images; a numpy array uint8 [H, W, 3] or [H, W]; a PIL image; a
                tensor [3, H, W] RGB, uint8 or floats in [0, 1]; a URL; an array or a tensor with one
                more axis for a batch; or a list or an iterator of any of these, of any sizes.
            channels: "RGB" or "BGR" (OpenCV's): the order of the channels of numpy images.
            batch_size: images that the network computes at once.
            urls: allows loading from URLs.

        Returns:
            `Detections` for one image, a list of them for a folder, a batch or a list. Within a list an
            image file that cannot be read has no detections, and the reason is in `error`.

        Raises:
            UserError: not an image; or the only image cannot be read.
        """
        found = list(self.stream(images, channels=channels, batch_size=batch_size, urls=urls))
        if not is_single(images):
            return found
        if found[0].error:
            raise UserError(found[0].error)
        return found[0]

    def stream(
        self,
        images: Any,
        *,
        channels: Channels | None = None,
        batch_size: int = 8,
        urls: bool = False,
    ) -> Iterator[Detections]:
        """The detections of each image, batch by batch, in order; arguments as for a call.

        Raises:
            UserError: something is not an image.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size}: expected at least 1")
        inputs = _read_all(images, channels, urls)
        while batch := list(islice(inputs, batch_size)):
            yield from self._detect(batch)

    def _detect(self, inputs: list["InputImage | Detections"]) -> Iterator[Detections]:
        """The detections of a batch; images that could not be read keep their place."""
        images = [each for each in inputs if isinstance(each, InputImage)]
        found = iter(self._run(images) if self._tile is None else map(self._run_tiled, images))
        for each in inputs:
            yield replace(each, names=self.names) if isinstance(each, Detections) else next(found)

    def _run_tiled(self, image: InputImage) -> Detections:
        """The detections of an image's tiles and of the whole image, merged."""
        assert self._tile is not None
        height, width = image.image.shape[:2]
        tiles = plan_tiles(height, width, self._tile)
        if len(tiles) > 1:
            tiles.append((0, 0, width, height))
        found: list[Detections] = []
        for start in range(0, len(tiles), TILE_BATCH):
            parts = tiles[start : start + TILE_BATCH]
            found += self._run([InputImage(image.image[y1:y2, x1:x2]) for x1, y1, x2, y2 in parts])
        return self._finish(merge_tiles(found, tiles, height, width), image)

    def _run(self, images: list[InputImage]) -> list[Detections]:
        if not images:
            return []
        sizes = np.array([each.image.shape[:2] for each in images])
        groups, shapes = self._placement.plan(sizes, len(images))
        batches = [
            collate(
                [
                    LoadedSample(
                        *self._placement.place(
                            replace(sample_without_labels(images[n].image), image_id=n), shapes[n]
                        )
                    )
                    for n in group
                ]
            )
            for group in groups
        ]
        predictions = predict(
            self._model,
            batches,
            self._postprocess,
            hardware=self.hardware,
            tta_views=self._views,
        )
        found: dict[int, Detections] = {}
        for each in (one for batch in predictions for one in batch):
            found[each.image_id] = self._finish(each.detections, images[each.image_id])
        return [found[n] for n in range(len(images))]

    def _finish(self, detections: structures.Detections, image: InputImage) -> Detections:
        whole = Detections(
            detections.boxes_xyxy,
            detections.scores,
            detections.labels,
            names=self.names,
            image=image.image,
            source=image.source,
        )
        return whole.select(whole.scores > self._thresholds[whole.labels])


def _read_all(
    images: Any, channels: Channels | None, urls: bool
) -> Iterator["InputImage | Detections"]:
    """The images; one that cannot be read becomes `Detections` with the reason."""
    paths = images
    if isinstance(images, (str, Path)) and not is_single(images):
        paths = list_images([str(images)])
    single = is_single(paths)
    items: Iterable[Any] = [paths] if single or _is_batch(paths) else paths
    for each in items:
        try:
            yield from iterate_images(each, channels=channels, urls=urls)
        except UnreadableImage as error:
            none = torch.zeros(0)
            yield Detections(
                none.reshape(0, 4), none, none.long(), source=str(each), error=str(error)
            )


def _is_batch(images: Any) -> bool:
    return isinstance(images, (np.ndarray, Tensor))


def _make_words(
    device: str,
    precision: str,
    size: int | None,
    nms_iou: float | None,
    max_detections: int | None,
    scales: Sequence[float],
    *,
    flip: bool,
) -> list[str]:
    """The arguments as config settings, which check them."""
    values = {
        "train.device": device,
        "train.precision": precision,
        "data.size": size,
        "eval.nms_iou": nms_iou,
        "eval.max_detections": max_detections,
        "eval.scales": list(scales),
        "eval.flip": flip,
    }
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]


def _find_labels(classes: Sequence[str | int], names: Sequence[str]) -> Tensor:
    """Mask [classes] of the wanted classes.

    Raises:
        UserError: an unknown class.
    """
    mask = torch.zeros(len(names), dtype=torch.bool)
    for each in [classes] if isinstance(classes, str) else classes:
        known = each in names if isinstance(each, str) else 0 <= each < len(names)
        if not known:
            shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise UserError(f"classes: unknown class {each!r}; the model has {shown}")
        mask[names.index(each) if isinstance(each, str) else each] = True
    return mask


def _read_thresholds(conf: Thresholds, names: Sequence[str]) -> list[float]:
    """The confidence threshold of each class."""
    if isinstance(conf, (str, Path)):
        values = _read_thresholds_file(Path(conf))
        unknown: set[str] = set()  # a report may have more classes
    elif isinstance(conf, dict):
        values, unknown = conf, set(conf) - set(names)
    else:
        values, unknown = dict.fromkeys(names, conf), set()
    for name in unknown:
        raise UserError(f"conf: unknown class {name!r}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise UserError(f"conf: {name}: {value!r}: expected a number between 0 and 1")
    return [float(values.get(name, CONF)) for name in names]


def _read_thresholds_file(path: Path) -> dict[str, float]:
    """The scores of a report's thresholds.json, of the classes that reach its goal."""
    text = read_regular_file(path)
    try:
        content = json.loads(text)
        rows = [(row["name"], row["point"]) for row in content["classes"]]
        return {name: point["score"] for name, point in rows if point is not None}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a thresholds.json of a report (val --report)") from None


def _restrict(postprocess: Postprocess, wanted: Tensor | None, agnostic: bool) -> Postprocess:
    """A postprocess that keeps only the wanted classes, and may suppress across classes."""
    if wanted is None and not agnostic:
        return postprocess
    return replace(
        postprocess,
        suppress=functools.partial(_suppress_wanted, postprocess.suppress, wanted, agnostic),
    )


def _suppress_wanted(
    suppress: Any, wanted: Tensor | None, agnostic: bool, candidates: Candidates, images: int
) -> list[structures.Detections]:
    if wanted is not None:
        candidates = candidates[wanted.to(candidates.labels.device)[candidates.labels]]
    return (
        suppress(candidates, images, across_classes=True)
        if agnostic
        else suppress(candidates, images)
    )
