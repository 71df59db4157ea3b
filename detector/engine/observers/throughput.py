"""Throughput of a run, and its bottleneck: the loader or the network."""

import os
import time

from tqdm import tqdm

from detector.engine.observers.base import Observer
from detector.engine.trainer import Trainer
from detector.structures import Batch

WARMUP_BATCHES = 3  # not measured: memory is allocated, kernels are selected
# The measurement ends with whichever comes first.
BATCHES, SECONDS = 20, 60.0


class Throughput:
    """Images and batches per second, from one measurement to the next."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._images = self._batches = 0

    def reset(self) -> None:
        """Forgets all batches; the next one starts the clock."""
        self._since, self._images, self._batches = None, 0, 0

    def count(self, images: int) -> None:
        """Counts a batch of this many images, which is about to be trained on."""
        self._since = self._since or time.perf_counter()
        self._images += images
        self._batches += 1

    def measure(self) -> tuple[float, float] | None:
        """Images/s and batches/s since the last measurement; None if no batch was counted.

        The counted batches must be done.
        """
        if self._since is None or not self._batches:
            return None
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rates = self._images / seconds, self._batches / seconds
        self._since, self._images, self._batches = now, 0, 0
        return rates


class ThroughputMonitor(Observer):
    """Prints once, soon after the start, the throughput of loader and network and which is smaller.

    Each batch carries the time that a worker spent on it, which gives the loader's throughput even if the
    network is the bottleneck. On a CPU, loader and network share the cores: each is measured while the
    other runs.

    Attributes:
        workers: of the data loader; 0 loads between the training steps.
        advice: config settings to try if reading files is the bottleneck; may be empty.
        reported: whether the line has been printed.
    """

    def __init__(self, *, workers: int, advice: str) -> None:
        self.workers, self.advice = workers, advice
        self.reported = False
        self._num_batches = 0
        self._current: Batch | None = None
        self._since = 0.0
        self._images, self._training, self._loading, self._reading = 0, 0.0, 0.0, 0.0

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Counts the batch before this one, which ended when the trainer began to wait for this one."""
        if self.reported:
            return
        now = time.perf_counter()
        self._count(now - trainer.loader_seconds)
        self._num_batches += 1
        if self._num_batches > WARMUP_BATCHES:
            self._current, self._since = batch, now
        enough = self._num_batches > WARMUP_BATCHES + BATCHES
        if enough or self._training + self._loading > SECONDS:
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Reports what was measured so far, since an evaluation follows."""
        self._count(time.perf_counter())
        self._report(trainer)

    def _count(self, now: float) -> None:
        if self._current is None:
            return
        self._images += len(self._current)
        self._training += now - self._since
        self._loading += self._current.seconds.total
        self._reading += self._current.seconds.reading
        self._current = None

    def _report(self, trainer: Trainer) -> None:
        if self.reported or not self._images or not self._loading:
            return
        self.reported = True
        images = self._images * trainer.process_group.world_size
        loader = images * max(self.workers, 1) / self._loading
        network = images / self._training
        share = self._reading / self._loading
        trainer.announce("speed", loader=loader, network=network, reading=share)
        tqdm.write(self.format_line(loader, network, share))

    def format_line(self, loader: float, network: float, reading: float) -> str:
        """The line for the console.

        Args:
            loader, network: images/s of each if it never waited for the other.
            reading: fraction of the loader's time that is spent reading files, in [0, 1].
        """
        text = (
            f"throughput: loader {loader:.0f} images/s ({reading:.0%} reading files), "
            f"network {network:.0f} images/s"
        )
        if not self.workers:
            text += "; data.workers=0: loading and training alternate"
        if network <= loader:
            return f"{text}; bottleneck: network"
        cores = os.cpu_count() or 1
        settings = [
            f"data.workers={cores}" if cores > self.workers else "a lighter bag of augmentations"
        ]
        stage = "augmentation"
        if reading >= 0.5:
            stage = "reading files"
            if self.advice:
                gain = min(network / loader, 1 / max(1 - reading, 1e-3))
                settings = [f"{self.advice} (up to {gain:.1f} times as fast)", *settings]
        return f"{text}; bottleneck: loader, mostly {stage}; try {', '.join(settings)}"
