"""Pictures of a run in its folder: curves.png, labels.png, val.jpg."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from detector.engine.observers.base import Observer
from detector.engine.progress import EpochReport
from detector.engine.trainer import Trainer
from detector.errors import writing
from detector.visualize.draw import save_image

METRICS = ("AP", "AP50", "AP75", "top1", "top5")


def plot_history(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Draws losses, AP and learning rate over the epochs as a PNG.

    Args:
        path: of the PNG; replaced only once the new one is complete.
        rows: of results.csv, one per epoch; a curve skips epochs that lack its value.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # 0.3 s, which commands that draw nothing save

    figure = Figure(figsize=(15, 4.5), layout="constrained")
    losses, metrics, rates = figure.subplots(1, 3)
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if "loss_" in name]
    epochs = [row["epoch"] for row in rows]
    if names:
        total = [sum(row.get(name, np.nan) for name in names) for row in rows]
        losses.plot(epochs, total, color="black", marker=".", label="total")
    for axes, chosen in ((losses, names), (metrics, METRICS), (rates, ("lr",))):
        for name in chosen:
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix("loss_"))
        axes.set(xlabel="epoch", xlim=(0.5, max(epochs, default=1) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    for axes in (losses, metrics):
        if axes.lines:
            axes.legend()
    losses.set(title="weighted losses")
    metrics.set(title="metrics of the EMA weights", ylim=(0, 1))
    highest = max((row["lr"] for row in rows), default=1.0) or 1.0  # a warm-up begins at 0
    rates.set(title="learning rate at the end of the epoch", ylim=(0, 1.05 * highest))
    new = path.with_suffix(".new")
    with writing(path):
        figure.savefig(new, dpi=100, format="png")
        new.replace(path)


class RunPlots(Observer):
    """Draws labels.png at the start and curves.png at each evaluation."""

    def __init__(self, curves: Path, labels: Path, draw_labels: Callable[[Path], None]) -> None:
        """`curves`, `labels`: the files; `draw_labels` plots the training labels to a file."""
        self.curves, self.labels, self.draw_labels = curves, labels, draw_labels

    def on_start(self, trainer: Trainer) -> None:
        """Draws the labels, unless the file exists."""
        if trainer.process_group.is_main and not self.labels.exists():
            with writing(self.labels):
                self.draw_labels(self.labels)

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Draws the curves after an evaluation."""
        if report.metrics and trainer.process_group.is_main:
            plot_history(self.curves, trainer.progress.history)


class ValBatchPicture(Observer):
    """A picture of ground truth and detections on the first validation images, at each evaluation."""

    def __init__(
        self,
        path: Path,
        draw: Callable[[], np.ndarray],
        log_image: Callable[[Trainer, str, np.ndarray], None],
    ) -> None:
        """
        Args:
            path: of the picture.
            draw: draws it, uint8 [H, W, 3].
            log_image: is called with trainer, name and picture, uint8 [H, W, 3].
        """
        self.path, self.draw, self.log_image = path, draw, log_image

    def on_epoch(self, trainer: Trainer, report: EpochReport) -> None:
        """Draws the picture after an evaluation."""
        if report.metrics and trainer.process_group.is_main:
            sheet = self.draw()
            save_image(self.path, sheet)
            self.log_image(trainer, "val", sheet)
