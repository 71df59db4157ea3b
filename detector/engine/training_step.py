"""The training step: forward, loss, backward, clip, optimizer step, EMA."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detector.device import Hardware, scale_images
from detector.distributed import ProcessGroup
from detector.engine.adversarial import SelfAdversary
from detector.engine.cuda_graphs import GraphedForward
from detector.engine.ema import ModelEMA
from detector.engine.freeze import Frozen
from detector.engine.micro_batch import Criterion, MicroBatch
from detector.engine.nonfinite import analyse_nonfinite_step, has_nonfinite_values
from detector.engine.out_of_memory import (
    BufferSnapshot,
    Chunk,
    choose_more_chunks,
    split_into_chunks,
)
from detector.engine.progress import Progress
from detector.engine.schedule import Schedule, StepSettings, apply_settings
from detector.errors import UserError
from detector.structures import Batch

SCALE_EVERY = 16  # batches between looks at the loss scale
MIN_SCALE = 2.0**-10  # of fp16 losses: 26 overflows in a row after the initial 65,536


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """Options of a training run.

    Attributes:
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        metrics: which of the evaluation's metrics are printed; the first one selects the best weights.
        patience: evaluations without a better value of it after which the run ends; 0 is no limit.
        clip_norm: maximum norm of a step's gradient, which is summed over the nominal batch; 0 is off.
        skip_limit: maximum number of non-finite steps to skip in a row; 0 ends the run at the first one.
        compile: run the forward and backward pass through torch.compile.
        capture: run them as CUDA graphs; only where `find_capture_obstacle` finds none.
        sync_batch_norms: BatchNorm statistics are those of all ranks; else each rank has its own.
        frozen: what is not trained.
        adversary: changes the images of some batches.
        ramps: are called before each batch with the fraction of training that is done.
    """

    eval_every: int = 1
    metrics: Sequence[str] = ("AP", "AP50")
    patience: int = 0
    clip_norm: float = 0.0
    skip_limit: int = 0
    compile: bool = False
    capture: bool = False
    sync_batch_norms: bool = True
    frozen: Frozen = field(default_factory=Frozen)
    adversary: SelfAdversary | None = None
    ramps: Sequence[Callable[[float], None]] = ()


class TrainingStep:
    """One optimizer step, made of one or several micro-batches.

    Attributes:
        model, criterion, optimizer, ema, schedule, hardware, process_group, options: as in `Trainer`.
        scaler: loss scaling, which fp16 needs.
        announce: reports an event, as `Trainer.announce`.
        on_gradients: is called when the gradients of a step are complete, still scaled.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA,
        *,
        schedule: Schedule,
        hardware: Hardware,
        process_group: ProcessGroup,
        options: TrainerOptions,
        announce: Callable[..., None],
        on_gradients: Callable[[], None],
    ) -> None:
        self.model, self.criterion, self.optimizer, self.ema = model, criterion, optimizer, ema
        self.schedule, self.hardware, self.process_group = schedule, hardware, process_group
        self.options, self.announce, self.on_gradients = options, announce, on_gradients
        self.scaler = hardware.scaler()
        self._buffers = BufferSnapshot(model)
        self._prepare_forward()

    def _prepare_forward(self) -> None:
        """What runs the model depends on which of its parameters are trained."""
        self._replica = self.process_group.replicate(
            self.model, shared_statistics=self.options.sync_batch_norms
        )
        self._forward = torch.compile(self._replica) if self.options.compile else self._replica
        capture = self.options.capture
        self._graphed = (
            GraphedForward(self.model, self.hardware, self.announce) if capture else None
        )

    def unfreeze(self) -> None:
        """Trains the whole model from here on."""
        if self.options.frozen.release():
            self._prepare_forward()

    def run(
        self,
        pending: list[MicroBatch],
        settings: StepSettings,
        progress: Progress,
        *,
        due: bool,
    ) -> bool:
        """Accumulates the gradients of the newest micro-batch; if `due`, updates the weights.

        `pending` are the micro-batches since the last step, the newest at the end; `due` says that they
        make up the nominal batch, or that the epoch ends. `progress` counts chunks and skipped steps.
        Returns whether the weights were updated.
        """

        def accumulate(micro_batches: Sequence[MicroBatch]) -> None:
            for micro_batch in micro_batches:
                micro_batch.losses = {}
                for chunk in self._split(micro_batch, progress.chunks):
                    images = self._prepare_images(chunk.batch, micro_batch.position)
                    last = due and chunk.is_last and micro_batch is micro_batches[-1]
                    with contextlib.nullcontext() if last else self._no_sync():
                        raw = self.run_network(images)
                        losses = self.criterion(raw, chunk.batch, chunk.counts(raw))
                        weighted = {n: self.criterion.weights[n] * v for n, v in losses.items()}
                        # times images: gradients are summed over the nominal batch, as in the recipe;
                        # times ranks: DistributedDataParallel averages over them
                        total = torch.stack(list(weighted.values())).sum() * micro_batch.count
                        self.scaler.scale(total * self.process_group.world_size).backward()
                    micro_batch.add_losses(weighted)
                    if self._graphed is not None and not last:
                        self._graphed.keep_gradients()

        self._accumulate_gradients(accumulate, pending, progress)
        if not due:
            return False
        self.on_gradients()
        apply_settings(self.optimizer, settings)
        norm = self._clip_gradients()
        scaled = self.scaler.is_enabled()
        if has_nonfinite_values(pending, norm, self.process_group, scaled=scaled):
            self._skip_nonfinite_step(pending, norm, settings.lr, progress)
            return False
        self.scaler.step(self.optimizer)
        self._update_scale(pending)
        self.optimizer.zero_grad()
        self.ema.update_parameters(self.model)
        progress.skipped_in_row = 0
        return True

    def run_network(self, images: Tensor) -> Sequence[Tensor]:
        """The raw maps of images in [0, 1]."""
        if self._graphed is not None:
            return self._graphed(images)
        with self.hardware.autocast():
            return self._forward(images)

    def _accumulate_gradients(
        self,
        accumulate: Callable[[Sequence[MicroBatch]], None],
        pending: list[MicroBatch],
        progress: Progress,
    ) -> None:
        """Calls `accumulate` for the newest micro-batch; if memory runs out, for all in more chunks.

        Raises:
            UserError: as `choose_more_chunks`.
        """
        new = not pending[-1].losses  # else the epoch has ended with a batch without images
        todo: Sequence[MicroBatch] = pending[-1:] if new else ()
        if new and len(pending) == 1:
            self._buffers.take()
        if not new and self.process_group.world_size > 1:
            todo = pending  # no backward pass has synchronised the gradients yet
            self._discard_gradients()
        while True:
            try:
                return accumulate(todo)
            except torch.OutOfMemoryError:
                pass  # leaving the block frees the error and the tensors that its traceback holds
            chunks, images = choose_more_chunks(
                pending, progress.chunks, self.hardware, self.process_group
            )
            progress.chunks = chunks
            self.announce("split", parts=chunks, images=images)
            todo = pending
            self._discard_gradients()

    def _discard_gradients(self) -> None:
        """Discards what the micro-batches of this step did to gradients and buffers."""
        self.optimizer.zero_grad()
        self._buffers.restore()

    def _split(self, micro_batch: MicroBatch, number: int) -> list[Chunk]:
        return split_into_chunks(
            micro_batch, number, self.criterion, self.hardware, self.process_group
        )

    def _prepare_images(self, batch: Batch, position: int) -> Tensor:
        """The images in [0, 1]; after the warm-up the adversary changes those of some batches."""
        images, adversary = scale_images(batch.images), self.options.adversary
        if adversary is None or position < self.schedule.warmup_batches or not len(batch):
            return images
        if not adversary.applies_to(*divmod(position, self.schedule.batches)):
            return images
        return adversary.perturb(
            images,
            batch,
            progress=self.schedule.progress(position),
            weights=self.criterion.weights,
            scale=self.scaler.scale,
        )

    def _no_sync(self) -> AbstractContextManager[Any]:
        """Accumulates gradients on this rank; the next backward outside of it sums over the ranks."""
        if isinstance(self._replica, nn.parallel.DistributedDataParallel):
            return self._replica.no_sync()
        return contextlib.nullcontext()

    def _clip_gradients(self) -> Tensor:
        """The norm of the gradient, before it is clipped."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.options.clip_norm:
            self.scaler.unscale_(self.optimizer)
            return nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _update_scale(self, pending: Sequence[MicroBatch]) -> None:
        self.scaler.update()
        look = pending[-1].position % SCALE_EVERY == 0  # waits for the device
        if look and self.scaler.is_enabled() and self.scaler.get_scale() < MIN_SCALE:
            raise UserError(
                f"fp16 gradients overflow at every loss scale ({self._describe_place(pending)}); try a "
                f"lower train.lr, a longer warm-up, or train.precision=bf16 or fp32"
            )

    def _skip_nonfinite_step(
        self, pending: Sequence[MicroBatch], norm: Tensor, lr: float, progress: Progress
    ) -> None:
        """Discards a non-finite step and reports it.

        Raises:
            UserError: too many in a row.
        """
        limit = self.options.skip_limit
        step = analyse_nonfinite_step(pending, norm, self.model, self.process_group)
        progress.skipped += 1
        progress.skipped_in_row += 1
        self._discard_gradients()
        if self.options.clip_norm:
            self.scaler.update()  # unscale_ has recorded these gradients
        text = step.describe(self._describe_place(pending), lr)
        self.announce(
            "not finite",
            **step.losses,
            gradient=step.norm,
            culprit=step.parameter,
            lr=lr,
            images=step.image_ids,
            skipped=progress.skipped,
            text=text,
        )
        if progress.skipped_in_row <= limit:
            return
        advice = "try a lower train.lr or a longer warm-up"
        if self.hardware.precision != "fp32":
            advice += ", or train.precision=fp32"
        if limit:
            raise UserError(
                f"{text}; {progress.skipped_in_row} steps in a row were skipped, train.nonfinite_limit "
                f"is {limit}; {advice}"
            )
        raise UserError(f"{text}; {advice}; train.nonfinite=skip skips such steps")

    def _describe_place(self, pending: Sequence[MicroBatch]) -> str:
        epoch, batch = divmod(pending[-1].position, self.schedule.batches)
        return f"epoch {epoch + 1}, batch {batch + 1}"
