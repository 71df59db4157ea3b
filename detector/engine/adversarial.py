"""Self-adversarial training: the images of some batches are perturbed against the network."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from detector.structures import Batch

# Separates this random stream from those of the samples, which are seeded by (seed, epoch, index).
TAG = 0x5A7


class SelfAdversary:
    """Perturbs images so that the network detects less in them.

    The first of the two passes of self-adversarial training: with the weights fixed, the images take a
    step down the gradient of the loss of the batch without its boxes, which hides the objects that the
    network detects. The boxes and labels are unchanged. The second pass is an ordinary training step on
    the perturbed images. Source: Bochkovskiy et al., "YOLOv4", 2020, section 3.3; as in darknet, applied
    to a fraction of the batches after the warm-up, with a step size that grows over training.

    Differs from darknet in two ways. darknet's step is the raw gradient of a sum; here it has a given
    root mean square per image, which does not depend on image, batch size, loss gain or precision. And
    the network is in evaluation mode, so that running statistics, random generators and gradients of
    the weights do not change.

    Attributes:
        share: fraction of the batches that are perturbed, in [0, 1].
        strength: root mean square of the perturbation at the end of training, for images in [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[
            [Sequence[Tensor], Batch, Callable[[Tensor], Tensor]], dict[str, Tensor]
        ],
        *,
        share: float,
        strength: float,
        seed: int,
        autocast: Callable[[], torch.autocast],
    ) -> None:
        """`model` and `criterion` are the trainer's; the model without DistributedDataParallel."""
        self.model, self.criterion, self.autocast = model, criterion, autocast
        self.share, self.strength, self.seed = share, strength, seed

    def applies_to(self, epoch: int, number: int) -> bool:
        """Whether batch `number` of an epoch is perturbed; depends on (seed, epoch, number) alone."""
        rng = np.random.default_rng([self.seed, epoch, number, TAG])
        return rng.random() < self.share

    def perturb(
        self,
        images: Tensor,
        batch: Batch,
        *,
        progress: float,
        weights: dict[str, float],
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    ) -> Tensor:
        """Perturbs images.

        Args:
            images: [B, 3, H, W] in [0, 1], of `batch`, on the device; not modified.
            batch: the batch on the device; only its crowd regions are used.
            progress: fraction of training that is done, in [0, 1].
            weights: of the losses in the total, by name.
            scale: multiplies the loss by the loss scale, which float16 needs; the result does not
                depend on it.

        Returns:
            Float [B, 3, H, W] in [0, 1], detached; an image without a finite gradient is unchanged.
        """
        images = images.detach().requires_grad_()
        empty = replace(
            batch,
            boxes_xyxy=batch.boxes_xyxy[:0],
            labels=batch.labels[:0],
            image_index=batch.image_index[:0],
        )
        with evaluation_mode(self.model), torch.enable_grad():
            with self.autocast():
                raw = self.model(images)
            losses = self.criterion(raw, empty, lambda count: count)  # of this rank alone
            total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
            (gradient,) = torch.autograd.grad(scale(total), images)
        gradient = gradient.float()
        largest = gradient.abs().amax((1, 2, 3), keepdim=True)  # [B, 1, 1, 1]
        unit = gradient / largest  # else squares of tiny or scaled values under- or overflow
        unit = unit / unit.square().mean((1, 2, 3), keepdim=True).sqrt()
        step = (self.strength * progress * unit).nan_to_num(0.0, 0.0, 0.0)
        return (images.detach() - step).clamp_(0, 1)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A context with the model in evaluation mode; at its end the mode of each module is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
