"""Self-adversarial training: the network first changes the image against itself, then learns from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from detector.structures import Batch

TAG = 0x5A7  # keeps these draws apart from those of the samples, which have (seed, epoch, index)


class SelfAdversary:
    """Changes images so that the network finds less in them.

    The first of the two passes of self-adversarial training: the weights stay, the image takes a step
    down the gradient of the loss for "there is nothing here", that of the batch without its boxes.
    Objects that the network finds fade for it; boxes and labels stay true. The second pass is an
    ordinary one. Source: Bochkovskiy et al., "YOLOv4", 2020, section 3.3; as in darknet, a share of the
    batches after the warm-up, with a step that grows over training.

    Differs from darknet in the length of a step, where darknet has the raw gradient of a sum: here it is
    the root mean square of the change of an image, so that it means the same for each image, batch
    size, gain of the loss and precision; and in the network's mode: evaluation, so that running
    statistics, generators and gradients of the weights are as they were.

    Attributes:
        share: of the batches, in [0, 1].
        strength: root mean square of an image's change at the end of training; of its range [0, 1].
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
        """`model` and `criterion` are the trainer's; the model without its wrapper for processes."""
        self.model, self.criterion, self.autocast = model, criterion, autocast
        self.share, self.strength, self.seed = share, strength, seed

    def applies_to(self, epoch: int, number: int) -> bool:
        """Whether batch `number` of an epoch is changed; from (seed, epoch, number) alone."""
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
        """The images, changed.

        Args:
            images: [B, 3, H, W] in [0, 1], of `batch`, on the device; left as they are.
            batch: whose crowd regions take no part.
            progress: share of training that is done, in [0, 1].
            weights: of the losses in the total.
            scale: of the loss, which float16 needs; it does not change the result.

        Returns:
            Float [B, 3, H, W] in [0, 1], detached; an image without a finite gradient is as it was.
        """
        images = images.detach().requires_grad_()
        nothing = replace(
            batch,
            boxes_xyxy=batch.boxes_xyxy[:0],
            labels=batch.labels[:0],
            image_index=batch.image_index[:0],
        )
        with evaluation_mode(self.model), torch.enable_grad():
            with self.autocast():
                raw = self.model(images)
            losses = self.criterion(raw, nothing, lambda count: count)  # of this process alone
            total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
            (gradient,) = torch.autograd.grad(scale(total), images)
        gradient = gradient.float()
        size = gradient.abs().amax((1, 2, 3), keepdim=True)  # [B, 1, 1, 1]
        unit = gradient / size  # squares of tiny or scaled values would leave float32
        unit = unit / unit.square().mean((1, 2, 3), keepdim=True).sqrt()
        step = (self.strength * progress * unit).nan_to_num(0.0, 0.0, 0.0)
        return (images.detach() - step).clamp_(0, 1)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
