"""What a run prints: a progress bar, a line per epoch, and warnings."""

from typing import Any

from tqdm import tqdm

from detector.engine.observers.base import Observer, count_batches_done
from detector.engine.observers.throughput import Throughput
from detector.engine.progress import EpochReport
from detector.engine.trainer import Trainer
from detector.structures import Batch


class Console(Observer):
    """A progress bar with losses, images/s, memory and remaining time, and a line per epoch."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._throughput = Throughput()
        self._reported: set[str] = set()  # lines on unreadable images

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Advances the bar; starts a new one at the first batch of an epoch."""
        if self._bar is None:
            self._bar = tqdm(
                total=len(trainer.loader),
                desc=f"epoch {epoch + 1}/{trainer.schedule.epochs}",
                unit="batch",
                leave=False,
                disable=None,  # off where the output is not a terminal
                dynamic_ncols=True,
            )
        self._bar.update(number + 1 - self._bar.n)
        self._throughput.count(len(batch) * trainer.process_group.world_size)

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Shows the numbers beside the bar; `left` is the remaining time without evaluations."""
        rates = self._throughput.measure()
        if self._bar is None or rates is None:
            return
        images, batches = rates
        left = trainer.schedule.epochs * len(trainer.loader) - count_batches_done(trainer)
        self._bar.set_postfix(
            {
                **{name: f"{value:.4f}" for name, value in losses.items()},
                "images/s": f"{images:.1f}",
                "GB": f"{trainer.hardware.peak_memory() / 1e9:.1f}",
                "left": tqdm.format_interval(left / batches),
            }
        )

    def on_event(self, trainer: Trainer, event: dict[str, Any]) -> None:
        """Warns of a skipped step, a batch that is split since memory ran out, and of a lost graph."""
        progress = trainer.progress
        if event["event"] == "not finite" and progress.skipped_in_row <= trainer.options.skip_limit:
            tqdm.write(f"step skipped ({progress.skipped} so far in this run): {event['text']}")
        elif event["event"] == "capture off":
            tqdm.write(event["text"])
        elif event["event"] == "split":
            tqdm.write(
                f"out of memory on {trainer.hardware.device}: from here on each batch is computed in "
                f"{event['parts']} chunks of up to {event['images']} images; gradients are the same, "
                f"except that BatchNorm statistics are those of a chunk"
            )

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Prints the epoch's line, after a line for each image that could not be read."""
        self._close()
        for line in sorted(trainer.progress.unreadable - self._reported):
            tqdm.write(f"skipped: {line}")
            self._reported.add(line)
        words = [f"epoch {report.epoch + 1:3d}/{report.epochs}"]
        words += [f"{name} {value:.4f}" for name, value in report.losses.items()]
        if report.metrics:
            words += [
                f"{name} {_format_ap(report.metrics[name])}" for name in trainer.options.metrics
            ]
        words.append(f"{report.seconds:.0f} s{'  best' if report.best else ''}")
        tqdm.write("  ".join(words))
        if trainer.out_of_patience:
            evaluations = trainer.progress.stale
            tqdm.write(
                f"no better {trainer.options.metrics[0]} in {evaluations} "
                f"evaluation{'s' if evaluations > 1 else ''}: training ends early"
            )

    def on_end(self, trainer: Trainer, outcome: str) -> None:
        """Removes the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._throughput.reset()


def _format_ap(value: float) -> str:
    """An AP; "none" where nothing is labelled."""
    return f"{value:.3f}" if value >= 0 else "none"
