"""Whether training waits for its images: a short training run that writes nothing."""

import contextlib
from collections.abc import Iterator

from detector.build import (
    build_data,
    build_evaluator,
    build_hardware,
    build_image_store,
    build_throughput_monitor,
    build_trainer,
    resolve_config,
)
from detector.config import Config
from detector.engine import Observer, ProcessGroup, Stopped, ThroughputMonitor, Trainer


def measure_bottleneck(config: Config) -> Iterator[str]:
    """Trains until the throughput of loader and network is known; the monitor prints it.

    Yields:
        Lines on the configuration, before training starts.

    Raises:
        UserError: nothing to train on.
    """
    hardware, process_group = build_hardware(config), ProcessGroup()
    data = build_data(config)
    config, data, _ = resolve_config(config, data, hardware, process_group)
    yield f"{config.model.arch}, {config.data.dataset}, {hardware}"
    store, lines = build_image_store(config, data.train.reader)
    data = data.with_store(store)
    yield from lines
    evaluator = build_evaluator(config, data.val, hardware)
    trainer = build_trainer(config, data, evaluator, hardware)
    monitor = build_throughput_monitor(config, store)
    trainer.observers = [monitor, StopOnceMeasured(monitor)]
    with contextlib.suppress(Stopped):
        trainer.run()


class StopOnceMeasured(Observer):
    """Stops training once the monitor has reported."""

    def __init__(self, monitor: ThroughputMonitor) -> None:
        self.monitor = monitor

    def on_step(self, trainer: Trainer) -> None:
        """Stops after a report."""
        if self.monitor.reported:
            trainer.stop("throughput measured")

    def on_train_epoch_end(self, trainer: Trainer) -> None:
        """Stops at the end of the epoch, before an evaluation."""
        trainer.stop("end of the epoch")
