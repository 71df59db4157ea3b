"""The data structures that the parts exchange: samples, batches and detections."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its ground truth, on the way from a reader to collation.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        boxes_xyxy: float32 [n, 4], pixels of `image`, corners (x1, y1, x2, y2).
        labels: int64 [n], class numbers 0..classes-1.
        image_id: the id of the image in its annotation file.
        ignore_xyxy: float32 [m, 4], regions (COCO's crowds) that are neither object nor background.
        shares: float32 [n], the class share of each label, of a classifier's sample; None: by area.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    image_id: int
    ignore_xyxy: np.ndarray
    shares: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class LetterboxTransform:
    """How an image was placed on its canvas: canvas = image * scale + (left, top), in pixels."""

    scale_x: float
    scale_y: float
    left: float
    top: float
    height: int  # of the original image
    width: int

    def to_original(self, boxes_xyxy: Tensor) -> Tensor:
        """Boxes [n, 4] in canvas pixels, mapped to pixels of the original image and clipped to it."""
        shift = boxes_xyxy.new_tensor([self.left, self.top] * 2)
        scale = boxes_xyxy.new_tensor([self.scale_x, self.scale_y] * 2)
        limit = boxes_xyxy.new_tensor([self.width, self.height] * 2)
        boxes = (boxes_xyxy - shift) / scale
        return torch.minimum(boxes.clamp(min=0), limit)


@dataclass(frozen=True, slots=True)
class LoadTime:
    """Seconds that the process that made a sample or a batch spent on it.

    Attributes:
        reading: reading and decoding image files, or getting images from a cache.
        total: reading, augmentation and collation.
    """

    reading: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadedSample:
    """What a data set returns for one key.

    Attributes:
        sample: None if none of its images could be read.
        placement: how the image was letterboxed (validation), or None (training).
        unreadable: a line for each image file that could not be read.
        seconds: time spent on making it.
    """

    sample: Sample | None
    placement: LetterboxTransform | None = None
    unreadable: tuple[str, ...] = ()
    seconds: LoadTime = LoadTime()


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one size, collated.

    Attributes:
        images: uint8 [B, 3, H, W], RGB; scaled to [0, 1] on the device, which makes the transfer
            a quarter of that of float32.
        boxes_xyxy: float32 [n, 4], pixels of `images`.
        labels: int64 [n].
        image_index: int64 [n], which of the B images each box belongs to.
        ignore_xyxy: float32 [m, 4], pixels; crowd regions.
        ignore_index: int64 [m], which of the B images each region belongs to.
        image_ids: B ids of the annotation file.
        placements: how each image was letterboxed (validation), or empty (training).
        unreadable: a line for each image file that could not be read and was skipped.
        seconds: time spent on making it.
        host: the batch on the CPU that this one on another device was copied from, or None: what depends
            on the number of boxes is computed there, since it would wait for the device.
        shares: float32 [n], the class share of each label, of a classifier's batch; None: by area.
    """

    images: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    image_index: Tensor
    ignore_xyxy: Tensor
    ignore_index: Tensor
    image_ids: Sequence[int]
    placements: Sequence[LetterboxTransform] = ()
    unreadable: Sequence[str] = ()
    seconds: LoadTime = LoadTime()
    host: "Batch | None" = None
    shares: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def class_shares(self, num_classes: int) -> Tensor:
        """The share of each image that each class has, as its sample says or by area of its boxes.

        It is the target of a classifier.

        Returns:
            float32 [B, classes]; rows sum to 1, or to 0 for an image without boxes.
        """
        areas = self.shares
        if areas is None:
            areas = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]).prod(1)
        shares = areas.new_zeros(len(self) * num_classes)
        shares.index_add_(0, self.image_index * num_classes + self.labels, areas)
        shares = shares.view(len(self), num_classes)
        return shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)

    def to(self, device: torch.device, memory_format: torch.memory_format) -> "Batch":
        """The same batch on `device`, images still uint8."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("boxes_xyxy", "labels", "image_index", "ignore_xyxy", "ignore_index")
        }
        if self.shares is not None:
            moved["shares"] = self.shares.to(device, non_blocking=True)
        images = self.images.to(device, non_blocking=True, memory_format=memory_format)
        leaves_host = self.images.device.type == "cpu" and device.type != "cpu"
        return replace(self, images=images, **moved, host=self if leaves_host else None)

    def chunk(self, number: int) -> list["Batch"]:
        """Splits the batch into `number` batches of consecutive images, as evenly as possible."""
        return [
            self._slice(len(self) * n // number, len(self) * (n + 1) // number)
            for n in range(number)
        ]

    def _slice(self, start: int, stop: int) -> "Batch":
        """Images `start` to `stop` with their boxes and regions."""
        boxes = (self.image_index >= start) & (self.image_index < stop)
        regions = (self.ignore_index >= start) & (self.ignore_index < stop)
        return replace(
            self,
            images=self.images[start:stop],
            boxes_xyxy=self.boxes_xyxy[boxes],
            labels=self.labels[boxes],
            shares=None if self.shares is None else self.shares[boxes],
            image_index=self.image_index[boxes] - start,
            ignore_xyxy=self.ignore_xyxy[regions],
            ignore_index=self.ignore_index[regions] - start,
            image_ids=self.image_ids[start:stop],
            placements=self.placements[start:stop],
            host=None if self.host is None else self.host._slice(start, stop),
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, so that copies to a GPU are asynchronous."""
        names = ["images", "boxes_xyxy", "labels", "image_index", "ignore_xyxy", "ignore_index"]
        names += [] if self.shares is None else ["shares"]
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections of one image, highest score first.

    Attributes:
        boxes_xyxy: float32 [n, 4], pixels.
        scores: float32 [n], in [0, 1].
        labels: int64 [n].
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """Every (box, class) of a batch above the confidence threshold, image by image.

    Attributes:
        image: int64 [m], which of the batch's images, ascending.
        boxes_xyxy: float32 [m, 4], pixels.
        scores: float32 [m], in [0, 1].
        labels: int64 [m].
    """

    image: Tensor
    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor) -> "Candidates":
        """Selects rows by a mask or by row numbers."""
        return Candidates(
            self.image[rows], self.boxes_xyxy[rows], self.scores[rows], self.labels[rows]
        )

    @classmethod
    def join(cls, parts: "Sequence[Candidates]") -> "Candidates":
        """Concatenates candidates and sorts them by image."""
        names = ("image", "boxes_xyxy", "scores", "labels")
        whole = cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
        return whole[whole.image.argsort(stable=True)]


@dataclass(frozen=True, slots=True)
class ImageDetections:
    """The detections of one image, on the CPU, in pixels of the original image."""

    image_id: int
    detections: Detections
