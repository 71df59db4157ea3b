"""The training step of timm's script, to be timed beside ours."""

import dataclasses
import itertools

import torch
from torch import nn

from detector.api.step_benchmark import StepTimer
from detector.device import scale_images
from detector.errors import UserError
from detector.models import Classifier, create_timm_network

BATCHES = 4  # that are used in turns


class TimmStep:
    """One step of timm's training script: forward, loss, backward, optimizer, EMA, scheduler.

    Network, optimizer, scaler, EMA, meter and scheduler are timm's, in the precision of ours; the loss
    is softmax cross-entropy. Batches are read beforehand: unlike ours, the step contains no loader.
    """

    def __init__(self, name: str, memory_format: torch.memory_format, timer: StepTimer) -> None:
        """A step for the data of another one, with the optimizer of its config.

        Args:
            name: of a network of timm, with as many parameters as that of `timer`.
            memory_format: of its weights and maps.
            timer: of our step.

        Raises:
            UserError: timm is not installed, or this network is another one.
        """
        model, config = timer.trainer.model, timer.config.train
        hardware = dataclasses.replace(timer.hardware, memory_format=memory_format)
        if not isinstance(model, Classifier):
            raise UserError(f"--timm {name}: timm's script trains classifiers; choose one by --cfg")
        classes = timer.num_classes
        self.model = create_timm_network(name, classes)
        require_same_size(name, self.model, model)

        # optional, installed if there is a network
        from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
        from timm.scheduler.cosine_lr import CosineLRScheduler
        from timm.utils.cuda import NativeScaler
        from timm.utils.metrics import AverageMeter
        from timm.utils.model_ema import ModelEmaV3

        self.hardware = hardware
        hardware.place(self.model).train()
        batches = [hardware.move(timer.next_batch()) for _ in range(BATCHES)]
        labels = [batch.class_shares(classes).argmax(1) for batch in batches]
        self.batches = itertools.cycle(zip(batches, labels, strict=True))
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = create_optimizer_v2(
            self.model,
            config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
        )
        self.scheduler = CosineLRScheduler(self.optimizer, t_initial=config.epochs)
        self.scaler = NativeScaler() if hardware.precision == "fp16" else None
        self.ema = ModelEmaV3(self.model, decay=config.ema_decay, use_warmup=True)
        self.losses = AverageMeter()
        self.updates = 0

    def __call__(self) -> None:
        """Trains on one batch."""
        batch, labels = next(self.batches)
        images = scale_images(batch.images)
        with self.hardware.autocast():
            loss = self.loss(self.model(images), labels)
        if self.scaler is not None:
            self.scaler(loss, self.optimizer)
        else:
            loss.backward()
            self.optimizer.step()
        self.updates += 1
        self.optimizer.zero_grad()
        self.ema.update(self.model, step=self.updates)
        self.losses.update(loss.item(), len(labels))
        self.scheduler.step_update(num_updates=self.updates, metric=self.losses.avg)


def require_same_size(name: str, theirs: nn.Module, ours: nn.Module) -> None:
    """Checks that two networks have as many parameters.

    Raises:
        UserError: they do not.
    """
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    if counts[0] != counts[1]:
        raise UserError(
            f"--timm {name}: has {counts[0]:,} parameters, the network of the config {counts[1]:,}; "
            f"choose the same one by model.arch, without model.small_images"
        )
