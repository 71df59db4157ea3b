"""Who looks on: console, results.csv, a picture of the first batch, checkpoints."""

import csv
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detector.draw import contact_sheet, save_image
from detector.engine.checkpoint import save_checkpoint
from detector.engine.runs import RunFolder
from detector.engine.trainer import EpochReport, Trainer, TrainerObserver
from detector.structures import Batch

Observer = TrainerObserver


class Console(Observer):
    """A progress bar with the losses, and one line an epoch."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._told: set[str] = set()

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Moves the bar; a new one at the first batch of an epoch."""
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

    def on_losses(self, trainer: Trainer, number: int, losses: dict[str, float]) -> None:
        """Shows the losses beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """The line that stays."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        for line in sorted(trainer.progress.unreadable - self._told):
            tqdm.write(f"left out: {line}")
            self._told.add(line)
        parts = [f"epoch {report.epoch + 1:3d}/{report.epochs}"]
        parts += [f"{name} {value:.4f}" for name, value in report.losses.items()]
        if report.metrics:
            parts.append(f"AP {report.metrics['AP']:.3f}  AP50 {report.metrics['AP50']:.3f}")
        parts.append(f"{report.seconds:.0f} s{'  best' if report.best else ''}")
        tqdm.write("  ".join(parts))
        if trainer.out_of_patience:
            tqdm.write(f"no better AP in {trainer.progress.stale} evaluations: training ends here")


class CsvLog(Observer):
    """results.csv: a row an epoch. A resumed run goes on after the last epoch it keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Rewrites the file with the new row, so that its columns always fit."""
        rows: list[dict[str, Any]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= report.epoch]
        rows.append(
            {
                "epoch": report.epoch + 1,
                **{f"loss_{name}": f"{value:.6g}" for name, value in report.losses.items()},
                "lr": f"{report.lr:.6g}",
                **{name: f"{value:.6f}" for name, value in report.metrics.items()},
                "seconds": f"{report.seconds:.1f}",
            }
        )
        columns = dict.fromkeys(name for row in rows for name in row)
        new = self.path.with_suffix(".new")
        with new.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns), restval="")
            writer.writeheader()
            writer.writerows(rows)
        new.replace(self.path)


class BatchPicture(Observer):
    """A picture of the first training batch: what the network really sees."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self.path, self.names = path, names

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Draws the very first batch of a run, once."""
        if number or self.path.exists():
            return
        images = batch.images.permute(0, 2, 3, 1).numpy()
        boxes = [
            (batch.boxes_xyxy[batch.image_index == i], batch.labels[batch.image_index == i])
            for i in range(len(batch))
        ]
        save_image(
            self.path,
            contact_sheet(
                [
                    (image, found.numpy(), [self.names[label] for label in labels.tolist()])
                    for image, (found, labels) in zip(images, boxes, strict=True)
                ]
            ),
        )


class SaveCheckpoints(Observer):
    """last.pt after every epoch, best.pt after the best.

    best.pt holds the averaged weights, the config and the class names: all that validation and
    detection need. last.pt holds the run's whole state besides.
    """

    def __init__(
        self, folder: RunFolder, *, config: dict[str, Any], names: tuple[str, ...]
    ) -> None:
        self.folder = folder
        self.about = {"config": config, "names": list(names)}

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Writes the files."""
        content = {
            **self.about,
            "weights": trainer.average.module.state_dict(),
            "epoch": report.epoch + 1,
            "metrics": report.metrics,
        }
        if report.best:
            save_checkpoint(self.folder.best, content)
        save_checkpoint(self.folder.last, {**content, "training": trainer.state_dict()})
