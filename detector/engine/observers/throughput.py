"""Does a run wait for its images, or for its network?"""

import os
import time

from tqdm import tqdm

from detector.engine.observers.base import Observer
from detector.engine.trainer import Trainer
from detector.structures import Batch

FIRST = 3  # batches that are not counted: memory is allocated, kernels are chosen
BATCHES, SECONDS = 20, 60.0  # until the line is said, whichever comes first


class ThroughputMonitor(Observer):
    """Says once, soon after a start, how many images a second loader and network could do alone.

    Workers tell how long they took for each batch, so that the loader's number is known where it is the
    network that limits, too. On a CPU both share the cores, and each number is that beside the other.
    """

    def __init__(self, *, workers: int, advice: str) -> None:
        """`workers`: reader processes; `advice`: what a user can do if images take long to read."""
        self.workers, self.advice = workers, advice
        self.told = False
        self._seen = 0
        self._newest: Batch | None = None
        self._since = 0.0
        self._images, self._learning, self._making, self._reading = 0, 0.0, 0.0, 0.0

    def on_batch(self, trainer: Trainer, epoch: int, number: int, batch: Batch) -> None:
        """Counts the batch before, which ended when this one was waited for."""
        if self.told:
            return
        now = time.perf_counter()
        self._count(now - trainer.waited)
        self._seen += 1
        if self._seen > FIRST:
            self._newest, self._since = batch, now
        if self._seen > FIRST + BATCHES or self._learning + self._making > SECONDS:
            self._tell(trainer)

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """An evaluation follows; what has been counted before it is enough, if there is anything."""
        self._count(time.perf_counter())
        self._tell(trainer)

    def _count(self, now: float) -> None:
        if self._newest is None:
            return
        self._images += len(self._newest)
        self._learning += now - self._since
        self._making += self._newest.seconds.total
        self._reading += self._newest.seconds.reading
        self._newest = None

    def _tell(self, trainer: Trainer) -> None:
        if self.told or not self._images or not self._making:
            return
        self.told = True
        images = self._images * trainer.process_group.world_size
        loader = images * max(self.workers, 1) / self._making
        network = images / self._learning
        share = self._reading / self._making
        trainer.announce("speed", loader=loader, network=network, reading=share)
        tqdm.write(self.line(loader, network, share))

    def line(self, loader: float, network: float, reading: float) -> str:
        """What is said: images a second of both, and the share of the loader's time for reading."""
        text = f"images/s: loader {loader:.0f} ({reading:.0%} of it reading files), network {network:.0f}"
        if not self.workers:
            text += "; data.workers=0: they take turns"
        if network <= loader:
            return f"{text}: the network is the limit"
        cores = os.cpu_count() or 1
        more = f"data.workers={cores}" if cores > self.workers else "a smaller bag"
        stage, ways = ("augmenting", more)
        if reading >= 0.5:
            stage, ways = "reading files", ", ".join(filter(None, (self.advice, more)))
        return f"{text}: the loader is the limit, most of all {stage}; try {ways}"
