"""From a classifier to top-1 and top-5 accuracy and its confusion matrix, as one callable."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from detector.device import Hardware, scale_images
from detector.distributed import ProcessGroup


class TopKEvaluator:
    """Runs a classifier over the validation batches.

    Attributes:
        confusion: int64 [classes, classes], images by ground-truth class and predicted class, of the last
            evaluation.
        unreadable: images that the last evaluation could not read; they are not counted.
        images: float64 [n, 7] of the last evaluation, rows in the order of the images' ids: id, label,
            whether the first prediction and one of the first five is right, cross-entropy, the first
            prediction and its probability.
    """

    def __init__(
        self,
        batches: Any,  # sized, iterable over Batch
        num_classes: int,
        *,
        hardware: Hardware,
        process_group: ProcessGroup | None = None,
    ) -> None:
        """`batches`: those of this rank."""
        self.batches, self.num_classes, self.hardware = batches, num_classes, hardware
        self.process_group = process_group or ProcessGroup()
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.unreadable: list[str] = []
        self.images = torch.zeros(0, 7, dtype=torch.float64)

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Accuracies in [0, 1] and the mean cross-entropy, {"top1", "top5", "loss"}, over all ranks.

        All are -1 if no image could be read.
        """
        model.eval()
        device, classes = self.hardware.device, self.num_classes
        sums = torch.zeros(2 + classes * classes, dtype=torch.float64, device=device)
        unreadable: list[str] = []
        rows = [torch.zeros(0, 7, dtype=torch.float64)]
        for batch in tqdm(self.batches, desc="evaluate", unit="batch", leave=False, disable=None):
            unreadable += batch.unreadable
            if len(batch):
                batch = self.hardware.move(batch)
                with self.hardware.autocast():
                    logits = model(scale_images(batch.images))
                labels = batch.class_shares(classes).argmax(1)
                rows.append(self._count(logits.float(), labels, sums, batch.image_ids))
        lines = self.process_group.gather_objects(unreadable)
        images = torch.cat(self.process_group.gather_objects(torch.cat(rows)))
        self.images = images[images[:, 0].argsort()]
        self.unreadable = [line for each in lines for line in each]
        loss, top5, *table = self.process_group.all_reduce(sums).tolist()
        self.confusion = torch.tensor(table, dtype=torch.int64).view(classes, classes)
        images = int(self.confusion.sum())
        if not images:
            return {"top1": -1.0, "top5": -1.0, "loss": -1.0}
        top1 = int(self.confusion.trace()) / images
        return {"top1": top1, "top5": top5 / images, "loss": loss / images}

    def get_images(self) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Ids, labels and, by metric, the value of each image of the last evaluation."""
        ids, labels, top1, top5, loss, _, _ = self.images.numpy().T
        values = {"top1": top1, "top5": top5, "loss": loss}
        return ids.astype(np.int64), labels.astype(np.int64), values

    def _count(
        self, logits: Tensor, labels: Tensor, sums: Tensor, image_ids: Sequence[int]
    ) -> Tensor:
        """Adds a batch to the sums; returns its rows of `images`, on the CPU."""
        top = logits.topk(min(5, self.num_classes), 1).indices
        pairs = labels * self.num_classes + top[:, 0]
        losses = functional.cross_entropy(logits, labels, reduction="none")
        found = (top == labels[:, None]).any(1)
        sums[0] += losses.sum()
        sums[1] += found.sum()
        sums[2:] += torch.bincount(pairs, minlength=self.num_classes**2)
        ids = torch.tensor(list(image_ids), dtype=torch.float64)[:, None]
        first = top[:, 0]
        scores = torch.softmax(logits.double(), 1).gather(1, first[:, None])[:, 0]
        columns = torch.stack([labels, first == labels, found, losses.double(), first, scores], 1)
        return torch.cat([ids, columns.cpu()], 1)
