"""The loop."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from detector.device import Hardware, scale_images
from detector.distributed import ProcessGroup
from detector.engine.adversarial import SelfAdversary
from detector.engine.ema import ModelEMA
from detector.engine.faults import (
    LEAST_SCALE,
    Buffers,
    Criterion,
    MemoryFull,
    MicroBatch,
    first_not_finite,
    some,
    totals_of_whole,
)
from detector.engine.freeze import Frozen
from detector.engine.observers.base import Observer
from detector.engine.progress import (
    EpochReport,
    Progress,
    generator_states,
    restore_generators,
)
from detector.engine.schedule import Schedule, StepSettings, apply_settings
from detector.errors import UserError
from detector.structures import Batch

LOOK_EVERY = 10  # batches between two looks at the losses: each waits for the device
FIRST_BATCHES = 20  # of a run, whose losses events.jsonl has to the last bit: `tools/reproduce.py`


class Batches(Protocol):
    """What the trainer asks of a loader: the same batches for the same epoch, always."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from batch `start` on."""
        ...


class Stopped(Exception):
    """A run that was asked to stop has written its checkpoint; the reason."""


class Trainer:
    """Trains a model.

    Attributes:
        model, criterion, optimizer, average, hardware, loader, schedule: the parts.
        evaluate: averaged model -> metrics, of which "AP" chooses the best.
        observers: told of everything; they change nothing.
        progress: where the run stands.
        waited: seconds that the newest batch was waited for.
        processes: those that train together; each has this trainer, and its own part of each batch.
        clip_norm: greatest norm of a step's gradient, that of the nominal batch's sum; 0 is no limit.
        patience: evaluations without a better AP after which the run ends; 0 is no limit.
        frozen: what is not learned.
        adversary: changes some batches before they are learned from.
        ramps: told before each batch what share of training is done.
        skip_limit: steps in a row that may be left out since their loss or gradient is not finite; 0
            ends the run at the first.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        average: ModelEMA,
        *,
        schedule: Schedule,
        loader: Batches,
        evaluate: Callable[[nn.Module], dict[str, float]],
        eval_every: int,
        hardware: Hardware,
        observers: Sequence[Observer] = (),
        process_group: ProcessGroup | None = None,
        shared_statistics: bool = True,
        clip_norm: float = 0.0,
        patience: int = 0,
        frozen: Frozen = Frozen(),  # noqa: B008  (immutable)
        adversary: SelfAdversary | None = None,
        ramps: Sequence[Callable[[float], None]] = (),
        skip_limit: int = 0,
        compiled: bool = False,
    ) -> None:
        """`shared_statistics`: BatchNorm's are those of all processes; else each has its own.
        `compiled`: the forward and backward pass run through torch.compile.
        """
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.average, self.schedule, self.loader = average, schedule, loader
        self.evaluate, self.eval_every, self.hardware = evaluate, eval_every, hardware
        self.observers = observers
        self.process_group = process_group or ProcessGroup()
        self.clip_norm, self.patience, self.frozen = clip_norm, patience, frozen
        self.adversary, self.ramps, self.skip_limit = adversary, ramps, skip_limit
        self.scaler = hardware.scaler()
        self.progress, self.waited = Progress(), 0.0
        self._replica = self.process_group.replicate(model, shared_statistics=shared_statistics)
        self._forward = torch.compile(self._replica) if compiled else self._replica
        self._buffers = Buffers(model)
        self._stop: str | None = None
        self._clock = time.perf_counter()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.epoch >= self.schedule.epochs or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether AP has not risen for so long that the run ends."""
        return 0 < self.patience <= self.progress.stale

    def run(self) -> None:
        """All epochs from where the run stands, or until patience ends.

        Raises:
            UserError: a loss or gradient is not finite, the memory is too small for one image, or no
                image can be read.
            Stopped: as `stop` asked.
        """
        with self._watched():
            for observer in self.observers:
                observer.on_start(self)
            self.announce("start")
            while not self.finished:
                self._run_epoch()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Tells the observers how what happens within it has ended."""
        outcome = "finished"
        try:
            yield
        except Stopped as reason:
            outcome = f"stopped: {reason}"
            raise
        except BaseException as error:
            outcome = f"failed: {type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
            raise
        finally:
            for observer in self.observers:
                observer.on_end(self, outcome)

    def announce(self, event: str, **values: Any) -> None:
        """Tells the observers what happens now: a name, and numbers and texts that belong to it."""
        progress = self.progress
        about = {"event": event, "epoch": progress.epoch + 1, "batch": progress.batch, **values}
        for observer in self.observers:
            observer.on_event(self, about)

    def stop(self, reason: str) -> None:
        """Asks for an end: after this step and its checkpoint, or after this batch of an evaluation; a
        resumed run starts that anew. Safe in a signal handler.
        """
        self._stop = reason

    def _run_epoch(self) -> None:
        progress = self.progress
        self._clock = time.perf_counter() - progress.seconds
        losses = self._train_epoch()
        due = (progress.epoch + 1) % self.eval_every == 0
        due = due or progress.epoch + 1 == self.schedule.epochs
        metrics = self._evaluate() if due else {}
        best = bool(metrics) and metrics["AP"] > progress.best_ap
        if best:
            progress.best_ap = metrics["AP"]
        if metrics:
            progress.stale = 0 if best else progress.stale + 1
        report = EpochReport(
            progress.epoch,
            self.schedule.epochs,
            losses,
            self.schedule.settings_at((progress.epoch + 1) * len(self.loader) - 1).lr,
            metrics,
            best,
            time.perf_counter() - self._clock,
        )
        progress.history.append(report.row())
        self.announce("epoch", **report.row())
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.totals, progress.images, progress.seconds = {}, 0, 0.0
        self._clock = time.perf_counter()
        for observer in self.observers:
            observer.on_epoch(self, report)
        self._stop_if_asked()

    def _evaluate(self) -> dict[str, float]:
        """The metrics of the averaged weights, the same in every process."""
        for observer in self.observers:
            observer.on_train_epoch_end(self)
        self._stop_if_asked()
        self.announce("evaluation")
        # not in the signal's handler: that may run where an exception is printed and forgotten
        asked = self.average.module.register_forward_pre_hook(lambda *_: self._end_evaluation())
        try:
            return self.evaluate(self.average.module)
        finally:
            asked.remove()

    def _end_evaluation(self) -> None:
        if (
            self._stop is not None and self.process_group.world_size == 1
        ):  # others would wait for ever
            raise Stopped(self._stop)

    def _train_epoch(self) -> dict[str, float]:
        """The rest of the epoch's batches -> the mean of each weighted loss over all of them."""
        self.model.train()
        self.frozen.freeze_statistics()
        progress, epoch = self.progress, self.progress.epoch
        totals, images = dict(progress.totals), progress.images
        skipped, waiting = progress.skipped, list[MicroBatch]()
        first = epoch * len(self.loader)
        batches = self.loader.epoch(epoch, progress.batch)
        for number, batch in enumerate(self._timed(batches), progress.batch):
            progress.unreadable.update(batch.unreadable)
            settings = self.schedule.settings_at(first + number)
            batch, count, largest = self._joined(batch)
            at_the_end = number + 1 == len(self.loader)
            if count:
                for observer in self.observers:
                    observer.on_batch(self, epoch, number, batch)
                for ramp in self.ramps:
                    ramp(self.schedule.progress(first + number))
                waiting.append(MicroBatch(batch, count, largest, first + number))
                self._learn(waiting, at_the_end or len(waiting) >= settings.accumulate)
            if waiting and (at_the_end or len(waiting) >= settings.accumulate):
                if (
                    not count and self.process_group.world_size > 1
                ):  # no batch was the last: nothing was sent
                    self._begin_again(waiting)
                if self._step(settings, waiting):
                    totals, images = _with(waiting, totals), images + sum(t.count for t in waiting)
                self._tell_first_losses(waiting)
                waiting = []
            if (totals or waiting) and number % LOOK_EVERY == 0:
                seen = images + sum(turn.count for turn in waiting)
                self._look(number, _with(waiting, totals), seen)
            if not waiting:
                progress.batch, progress.totals, progress.images = number + 1, dict(totals), images
                for observer in self.observers:
                    observer.on_step(self)
                if not at_the_end:
                    self._stop_if_asked()
        if images:
            return self._look(len(self.loader), totals, images)
        if progress.skipped > skipped:
            return {}
        raise UserError(f"no image of epoch {epoch + 1} can be read; see the lines above")

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, each with how long it was waited for in `waited`."""
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.waited = time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    def _tell_first_losses(self, turns: Sequence[MicroBatch]) -> None:
        """Announces the losses of the run's first batches, each alone, without rounding."""
        for turn in turns:
            if turn.position < FIRST_BATCHES:
                sums = self.process_group.all_reduce(
                    torch.stack([v.double() for v in turn.losses.values()])
                )
                losses = dict(zip(turn.losses, sums.tolist(), strict=True))
                self.announce("first losses", batch=turn.position % len(self.loader), **losses)

    def _joined(self, batch: Batch) -> tuple[Batch, int, int]:
        """The batch, how many images it has in all processes, and how many at most in one.

        A process without one gets no images of the others' size: it takes part in what all do together.
        """
        shapes = self.process_group.all_gather(torch.tensor([len(batch), *batch.images.shape[2:]]))
        height, width = shapes[:, 1:].amax(0).tolist()
        if not len(batch):
            batch = replace(batch, images=batch.images.new_zeros(0, 3, height, width))
        return batch, int(shapes[:, 0].sum()), int(shapes[:, 0].max())

    def _learn(self, waiting: list[MicroBatch], last: bool) -> None:
        """Adds the gradients of the newest of the waiting batches; `last`: before an optimiser step.

        Where the memory is full, all of them are computed again, in more parts.
        """
        if len(waiting) == 1:
            self._buffers.keep()
        if not self._fits(waiting[-1:], last):
            self._begin_again(waiting, last, more_parts=True)

    def _begin_again(
        self, waiting: list[MicroBatch], last: bool = True, *, more_parts: bool = False
    ) -> None:
        """The gradients of all waiting batches anew, as if none of them had been computed."""
        while True:
            if more_parts:
                self._split(waiting)
            self.optimizer.zero_grad()
            self._buffers.restore()
            if self._fits(waiting, last):
                return
            more_parts = True

    def _fits(self, turns: Sequence[MicroBatch], last: bool) -> bool:
        """Adds the gradients of the batches; False where the memory ends, and they are of no use."""
        try:
            for turn in turns:
                turn.losses = self._backward(turn, last and turn is turns[-1])
        except torch.OutOfMemoryError:
            return False  # the error, and the tensors that its traceback holds, are gone
        return True

    def _split(self, waiting: Sequence[MicroBatch]) -> None:
        """From now on batches are computed in twice as many parts.

        Raises:
            UserError: a part is one image already, or there are other processes: those wait within the
                step that failed here, so that it cannot be repeated.
        """
        largest, parts = max(turn.largest for turn in waiting), 2 * self.progress.parts
        where = f"the memory of {self.hardware.device} is full"
        if self.progress.parts >= largest:
            raise UserError(
                f"{where} with one image at a time; try a smaller data.size or model.arch"
            )
        if self.process_group.world_size > 1:
            raise MemoryFull(
                f"{where} on rank {self.process_group.rank} of {self.process_group.world_size}, with "
                f"up to {-(-largest // self.progress.parts)} images at a time; the resumed run "
                f"computes each batch in {parts} chunks, on every rank",
                parts,
            )
        self.progress.parts = parts
        if self.hardware.device.type == "cuda":
            torch.cuda.empty_cache()
        self.announce("split", parts=parts, images=-(-largest // parts))

    def _backward(self, turn: MicroBatch, last: bool) -> dict[str, Tensor]:
        """Adds the gradients of a batch; returns this process's part of its weighted losses, detached.

        `last`: before an optimiser step.
        """
        batch = self.hardware.move(turn.batch)
        # the same number in all processes, which meet in each; alone, none is empty
        number = min(self.progress.parts, turn.largest)
        parts = batch.chunk(number) if number > 1 else [batch]
        sums: dict[str, Tensor] = {}
        counts: list[Tensor] = []
        for part in parts:
            images = self._images(part, turn.position)
            alone = not last or part is not parts[-1]
            with self._gradients_stay_here() if alone else contextlib.nullcontext():
                with self.hardware.autocast():
                    raw = self._forward(images)
                if number == 1:
                    losses = self.criterion(raw, part, self.process_group.all_reduce)
                else:
                    if part is parts[0]:
                        total = self.process_group.all_reduce
                        counts = totals_of_whole(self.criterion, raw, batch, total)
                    known = iter(counts)
                    losses = self.criterion(raw, part, lambda _, known=known: next(known))
                weighted = {name: self.criterion.weights[name] * v for name, v in losses.items()}
                # times images: gradients are summed over the nominal batch, as in the recipe; times
                # processes: DistributedDataParallel takes their mean
                total = torch.stack(list(weighted.values())).sum() * turn.count
                self.scaler.scale(total * self.process_group.world_size).backward()
            for name, value in weighted.items():
                sums[name] = sums.get(name, 0) + value.detach()
        return sums

    def _images(self, batch: Batch, position: int) -> Tensor:
        """The images in [0, 1], changed if the batch, after the warm-up, is one of the adversary's."""
        images = scale_images(batch.images)
        if self.adversary is None or position < self.schedule.warmup_batches or not len(batch):
            return images
        if not self.adversary.applies_to(*divmod(position, len(self.loader))):
            return images
        return self.adversary.perturb(
            images,
            batch,
            progress=self.schedule.progress(position),
            weights=self.criterion.weights,
            scale=self.scaler.scale,
        )

    def _gradients_stay_here(self) -> AbstractContextManager[Any]:
        """Adds gradients up in this process; the next backward outside sends them to the others."""
        if isinstance(self._replica, nn.parallel.DistributedDataParallel):
            return self._replica.no_sync()
        return contextlib.nullcontext()

    def _step(self, settings: StepSettings, waiting: Sequence[MicroBatch]) -> bool:
        """An optimiser step, unless its numbers are not finite; whether it was done."""
        for observer in self.observers:
            observer.on_gradients(self)
        apply_settings(self.optimizer, settings)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        numbers = [value.float() for turn in waiting for value in turn.losses.values()]
        if not self.scaler.is_enabled():  # else it looks for itself: scaled gradients may overflow
            numbers.append(norm.float())
        finite = bool(torch.stack(numbers).isfinite().all())  # host sync: once a step
        if self.process_group.any(not finite):
            self._leave_out(settings, waiting, norm)
            return False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < LEAST_SCALE:
            raise UserError(
                f"fp16 gradients overflow however small the loss is made ({self._place(waiting)}); "
                f"try a lower train.lr, a longer warm-up, or train.precision=bf16 or fp32"
            )
        self.optimizer.zero_grad()
        self.average.update_parameters(self.model)
        self.progress.skipped_in_row = 0
        return True

    def _leave_out(
        self, settings: StepSettings, waiting: Sequence[MicroBatch], norm: Tensor
    ) -> None:
        """Takes back a step whose numbers are not finite, and says which.

        Raises:
            UserError: there were too many in a row.
        """
        progress = self.progress
        bad = [t for t in waiting if not torch.stack(list(t.losses.values())).isfinite().all()]
        sums = [{n: float(v) for n, v in _with([turn], {}).items()} for turn in waiting]
        mine = ([list(t.batch.image_ids) for t in bad], sums)
        every = [list(t.batch.image_ids) for t in waiting]
        found = self.process_group.gather_objects((*mine, every))
        ids = [i for bads, _, _ in found for part in bads for i in part]
        culprit = "" if ids else first_not_finite(self.model)
        ids = ids or [i for _, _, all_of_one in found for part in all_of_one for i in part]
        images = sum(turn.count for turn in waiting)
        losses = {
            name: f"{sum(turn[name] for _, turns, _ in found for turn in turns) / images:.4g}"
            for name in waiting[0].losses
        }
        progress.skipped += 1
        progress.skipped_in_row += 1
        self.optimizer.zero_grad()
        self._buffers.restore()
        if self.clip_norm:
            self.scaler.update()  # it has seen these gradients

        shown = ", ".join(f"{name} {value}" for name, value in losses.items())
        gradient = f"gradient norm {float(norm):.4g}{f', first in {culprit}' if culprit else ''}"
        text = (
            f"the loss or its gradient is not a finite number ({self._place(waiting)}: {shown}; "
            f"{gradient}; lr {settings.lr:.3g}; images {some(ids)})"
        )
        self.announce(
            "not finite",
            **losses,
            gradient=f"{float(norm):.4g}",
            culprit=culprit,
            lr=settings.lr,
            images=ids,
            skipped=progress.skipped,
            text=text,
        )
        if progress.skipped_in_row <= self.skip_limit:
            return
        advice = "try a lower train.lr or a longer warm-up"
        if self.hardware.precision != "fp32":
            advice += ", or train.precision=fp32"
        if self.skip_limit:
            raise UserError(
                f"{text}; {progress.skipped_in_row} steps in a row, and train.nonfinite_limit is "
                f"{self.skip_limit}; {advice}"
            )
        raise UserError(f"{text}; {advice}; train.nonfinite=skip leaves such steps out")

    def _place(self, waiting: Sequence[MicroBatch]) -> str:
        epoch, batch = divmod(waiting[-1].position, len(self.loader))
        return f"epoch {epoch + 1}, batch {batch + 1}"

    def _stop_if_asked(self) -> None:
        if self.process_group.any(self._stop is not None):
            for observer in self.observers:
                observer.on_stop(self)
            raise Stopped(
                next(reason for reason in self.process_group.gather_objects(self._stop) if reason)
            )

    def _look(self, number: int, totals: dict[str, Tensor], images: int) -> dict[str, float]:
        """Mean losses of the epoch so far, of all processes; waits for the device."""
        sums = self.process_group.all_reduce(
            torch.stack([totals[name].double() for name in totals])
        ).tolist()
        losses = {name: value / images for name, value in zip(totals, sums, strict=True)}
        if not np.isfinite(sums).all():
            return losses  # of a step that is not done yet, which will find the same
        for observer in self.observers:
            observer.on_losses(self, number, losses)
        self.announce("losses", batch=number, **losses)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on: plain values and tensors; asked in every process."""
        progress = self.progress
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": self.process_group.gather_objects(generator_states()),
            "progress": {
                "epoch": progress.epoch,
                "batch": progress.batch,
                "best_ap": progress.best_ap,
                "stale": progress.stale,
                "totals": [
                    _on_the_cpu(each) for each in self.process_group.gather_objects(progress.totals)
                ],
                "images": progress.images,
                "seconds": time.perf_counter() - self._clock,
                "unreadable": sorted(
                    set().union(*self.process_group.gather_objects(progress.unreadable))
                ),
                "history": list(progress.history),
                "skipped": progress.skipped,
                "skipped_in_row": progress.skipped_in_row,
                "parts": progress.parts,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Goes on from where `state_dict` was taken.

        Returns:
            A line for each thing that makes the rest of the run differ from one that never stopped.
        """
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        rank, size = self.process_group.rank, self.process_group.world_size
        progress, totals = state["progress"], state["progress"]["totals"]
        device = self.hardware.device
        self.progress = Progress(
            progress["epoch"],
            progress["batch"],
            progress["best_ap"],
            progress.get("stale", 0),  # a file of before there was patience has none
            totals={name: value.to(device) for name, value in _part(totals, rank, size).items()},
            images=progress["images"],
            seconds=progress["seconds"],
            unreadable=set(progress["unreadable"]),
            history=list(progress["history"]),
            skipped=progress.get("skipped", 0),
            skipped_in_row=progress.get("skipped_in_row", 0),
            parts=progress.get("parts", 1),
        )
        generators = state["generators"]
        restore_generators(generators[min(rank, len(generators) - 1)])
        if len(generators) == size:
            return []
        ranks = f"{size} rank{'s' if size > 1 else ''}"
        return [
            f"the run resumes on {ranks} instead of {len(generators)}: sums are rounded "
            f"differently, and layers that draw (DropBlock, rrelu) draw different numbers"
        ]


def _with(turns: Sequence[MicroBatch], totals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Losses times images: `totals`, and those of the turns."""
    totals = dict(totals)
    for turn in turns:
        for name, value in turn.losses.items():
            totals[name] = totals.get(name, 0) + value * turn.count
    return totals


def _on_the_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in values.items()}


def _part(totals: list[dict[str, Tensor]], rank: int, size: int) -> dict[str, Tensor]:
    """Process `rank`'s part of sums that other processes may have had; number 0 takes the rest."""
    if len(totals) == size:
        return totals[rank]
    share = 1.0 if rank == 0 else 0.0
    names = totals[0] if totals else {}
    return {name: share * torch.stack([part[name] for part in totals]).sum(0) for name in names}
