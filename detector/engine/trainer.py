"""The training loop."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from detector.device import Hardware
from detector.distributed import ProcessGroup
from detector.engine.checkpoint import load_weights
from detector.engine.checkpoint_content import fit_optimizer_state, reading_checkpoint
from detector.engine.ema import ModelEMA
from detector.engine.micro_batch import Criterion, MicroBatch, sum_losses
from detector.engine.observers.base import Observer
from detector.engine.progress import EpochReport, Progress, get_generator_states, restore_generators
from detector.engine.schedule import Schedule
from detector.engine.training_step import TrainerOptions, TrainingStep
from detector.errors import UserError
from detector.structures import Batch

LOG_EVERY = 10  # batches between two logs of the losses: each waits for the device
FIRST_BATCHES = 20  # of a run: events.jsonl has their unrounded losses for `tools/reproduce.py`


class Batches(Protocol):
    """What the trainer requires of a loader: the same batches for the same epoch, always."""

    def __len__(self) -> int:
        """Batches per epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from batch `start` on."""
        ...

    def close(self) -> None:
        """Ends the worker processes, if there are any."""
        ...


class Stopped(Exception):
    """A run was asked to stop and has written its checkpoint; the argument is the reason."""


class Trainer:
    """Trains a model.

    Attributes:
        step: the training step, with model, criterion, optimizer, EMA and loss scaling.
        hardware, loader, schedule, options: the other parts.
        evaluate: EMA model -> metrics; the first of `options.metrics` selects the best weights.
        process_group: the ranks that train together; each has a trainer and its share of each batch.
        observers: are notified of everything; they change nothing.
        progress: the state of the run.
        loader_seconds: time spent waiting for the newest batch.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA,
        *,
        schedule: Schedule,
        loader: Batches,
        evaluate: Callable[[nn.Module], dict[str, float]],
        hardware: Hardware,
        process_group: ProcessGroup | None = None,
        options: TrainerOptions = TrainerOptions(),  # noqa: B008  (immutable)
    ) -> None:
        self.schedule, self.loader, self.evaluate = schedule, loader, evaluate
        self.hardware, self.options = hardware, options
        self.process_group = process_group or ProcessGroup()
        self.observers: Sequence[Observer] = ()
        self.progress, self.loader_seconds = Progress(), 0.0
        self.step = TrainingStep(
            model,
            criterion,
            optimizer,
            ema,
            schedule=schedule,
            hardware=hardware,
            process_group=self.process_group,
            options=options,
            announce=self.announce,
            on_gradients=lambda: self._notify("on_gradients"),
        )
        self._stop_reason: str | None = None
        self._epoch_start = time.perf_counter()

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.step.model

    @property
    def criterion(self) -> Criterion:
        """The loss."""
        return self.step.criterion

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the model's parameters."""
        return self.step.optimizer

    @property
    def ema(self) -> ModelEMA:
        """The EMA of the weights, which is evaluated."""
        return self.step.ema

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which fp16 needs."""
        return self.step.scaler

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.epoch >= self.schedule.epochs or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether AP has not improved for so long that the run ends."""
        return 0 < self.options.patience <= self.progress.stale

    def run(self) -> None:
        """Trains the remaining epochs, or until AP has not improved for `patience` evaluations.

        Raises:
            UserError: a loss or gradient is non-finite, memory is too small for one image, or no image
                can be read.
            Stopped: `stop` was called.
        """
        with self._report_outcome():
            self._notify("on_start")
            self.announce("start")
            try:
                while not self.finished:
                    self._run_epoch()
            finally:
                self.loader.close()

    def stop(self, reason: str) -> None:
        """Asks the run to stop; safe in a signal handler.

        It stops after the current step and its checkpoint, or after the current batch of an evaluation,
        which a resumed run repeats.
        """
        self._stop_reason = reason

    def announce(self, event: str, **values: Any) -> None:
        """Notifies the observers of an event: its name, and numbers and texts that belong to it."""
        progress = self.progress
        content = {"event": event, "epoch": progress.epoch + 1, "batch": progress.batch, **values}
        self._notify("on_event", content)

    def _notify(self, method: str, *values: Any) -> None:
        for observer in self.observers:
            getattr(observer, method)(self, *values)

    @contextlib.contextmanager
    def _report_outcome(self) -> Iterator[None]:
        """Notifies the observers of how the run ended."""
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
            self._notify("on_end", outcome)

    def _run_epoch(self) -> None:
        progress = self.progress
        self._epoch_start = time.perf_counter() - progress.seconds
        losses = self._train_epoch()
        last = progress.epoch + 1 == self.schedule.epochs
        due = last or (progress.epoch + 1) % self.options.eval_every == 0
        metrics = self._evaluate() if due else {}
        # without an AP, since nothing is labelled (-1), the newest weights are the best known
        score = metrics[self.options.metrics[0]] if metrics else -1.0
        best = bool(metrics) and (score > progress.best_ap or score < 0)
        if best:
            progress.best_ap = score
        if metrics:
            progress.stale = 0 if best else progress.stale + 1
        report = EpochReport(
            progress.epoch,
            self.schedule.epochs,
            losses,
            self.schedule.settings_at((progress.epoch + 1) * len(self.loader) - 1).lr,
            metrics,
            best,
            time.perf_counter() - self._epoch_start,
        )
        progress.history.append(report.row())
        self.announce("epoch", **report.row())
        progress.begin_epoch()
        self._epoch_start = time.perf_counter()
        self._notify("on_epoch", report)
        self._stop_if_asked()

    def _train_epoch(self) -> dict[str, float]:
        """Trains on the remaining batches of the epoch; returns the mean weighted losses of all of it."""
        self.model.train()
        if self.options.frozen.ends_before(self.progress.epoch):
            self.step.unfreeze()
        else:
            self.options.frozen.freeze_statistics()
        progress, epoch = self.progress, self.progress.epoch
        totals, images = dict(progress.totals), progress.images
        skipped, pending = progress.skipped, list[MicroBatch]()
        first = epoch * len(self.loader)
        batches = self.loader.epoch(epoch, progress.batch)
        for number, batch in enumerate(self._time(batches), progress.batch):
            progress.unreadable.update(batch.unreadable)
            settings = self.schedule.settings_at(first + number)
            new = MicroBatch.gather(batch, first + number, self.process_group)
            if new.count:
                self._notify("on_batch", epoch, number, new.batch)
                for ramp in self.options.ramps:
                    ramp(self.schedule.progress(first + number))
                pending.append(new)
            end = number + 1 == len(self.loader)
            due = bool(pending) and (end or len(pending) >= settings.accumulate)
            if new.count or due:
                updated = self.step.run(pending, settings, progress, due=due)
                if updated:
                    totals = sum_losses(pending, totals)
                    images += sum(each.count for each in pending)
            if due:
                self._log_first_losses(pending)
                pending = []
            if (totals or pending) and number % LOG_EVERY == 0:
                seen = images + sum(each.count for each in pending)
                self._log_losses(number, sum_losses(pending, totals), seen)
            if not pending:
                progress.batch, progress.totals, progress.images = number + 1, dict(totals), images
                self._notify("on_step")
                if not end:
                    self._stop_if_asked()
        if images:
            return self._log_losses(len(self.loader), totals, images)
        if progress.skipped > skipped:
            return {}
        reasons = sorted(set().union(*self.process_group.gather_objects(progress.unreadable)))
        first = f"; {len(reasons)} files failed, the first: {reasons[0]}" if reasons else ""
        raise UserError(f"no image of epoch {epoch + 1} can be read{first}")

    def _evaluate(self) -> dict[str, float]:
        """The metrics of the EMA weights, the same on every rank."""
        self._notify("on_train_epoch_end")
        self._stop_if_asked()
        self.announce("evaluation")
        # not in the signal handler: Python may print and ignore an exception that is raised there
        hook = self.ema.module.register_forward_pre_hook(lambda *_: self._interrupt_evaluation())
        try:
            return self.evaluate(self.ema.module)
        finally:
            hook.remove()

    def _interrupt_evaluation(self) -> None:
        # with several ranks the others would wait forever
        if self._stop_reason is not None and self.process_group.world_size == 1:
            raise Stopped(self._stop_reason)

    def _stop_if_asked(self) -> None:
        if self.process_group.any(self._stop_reason is not None):
            self._notify("on_stop")
            reasons = self.process_group.gather_objects(self._stop_reason)
            raise Stopped(next(reason for reason in reasons if reason))

    def _time(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches; measures `loader_seconds`, the time spent waiting for each."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.loader_seconds = time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _log_losses(self, number: int, totals: dict[str, Tensor], images: int) -> dict[str, float]:
        """The mean losses of the epoch so far over all ranks; waits for the device."""
        sums = self.process_group.all_reduce(
            torch.stack([totals[name].double() for name in totals])
        ).tolist()
        losses = {name: value / images for name, value in zip(totals, sums, strict=True)}
        if np.isfinite(sums).all():  # else a pending step is non-finite and is reported when due
            self._notify("on_losses", number, losses)
            self.announce("losses", batch=number, **losses)
        return losses

    def _log_first_losses(self, micro_batches: Sequence[MicroBatch]) -> None:
        """Announces the losses of each of the run's first batches, without rounding."""
        for each in micro_batches:
            if each.position < FIRST_BATCHES:
                sums = self.process_group.all_reduce(
                    torch.stack([value.double() for value in each.losses.values()])
                )
                losses = dict(zip(each.losses, sums.tolist(), strict=True))
                self.announce("first losses", batch=each.position % len(self.loader), **losses)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, all that a resumed run needs; to be called on every rank."""
        progress = self.progress.state_dict(self.process_group)
        return {
            "model": self.model.state_dict(),
            "average": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "generators": self.process_group.gather_objects(get_generator_states()),
            "progress": {**progress, "seconds": time.perf_counter() - self._epoch_start},
        }

    def load_state_dict(self, state: dict[str, Any], source: str = "training state") -> list[str]:
        """Resumes from where `state_dict` was called.

        Args:
            state: of a model, an optimizer and a schedule like this trainer's.
            source: of the state, for messages.

        Returns:
            A line for each reason why the rest of the run will differ from an uninterrupted one.

        Raises:
            UserError: the state does not fit.
        """
        with reading_checkpoint(source, "malformed: the training state cannot be restored"):
            load_weights(self.model, state["model"], source)
            load_weights(self.ema, state["average"], source)
            optimizer = fit_optimizer_state(self.optimizer, state["optimizer"], source)
            self.optimizer.load_state_dict(optimizer)
            if state["scaler"]:  # empty unless the run was in fp16
                self.scaler.load_state_dict(state["scaler"])
            group, generators = self.process_group, state["generators"]
            self.progress = Progress.from_state_dict(state["progress"], group, self.hardware.device)
            if generators:
                restore_generators(generators[min(group.rank, len(generators) - 1)])
        draws = "layers that draw (DropBlock, rrelu) draw different numbers"
        if not generators:
            return [f"{source} has no states of random generators: {draws}"]
        if len(generators) == group.world_size:
            return []
        ranks = f"{group.world_size} rank{'s' if group.world_size > 1 else ''}"
        return [
            f"the run resumes on {ranks} instead of {len(generators)}: sums are rounded "
            f"differently, and {draws}"
        ]
