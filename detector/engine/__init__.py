"""The training loop and what it needs; knows no model, only modules, callables and iterables.

Read `trainer` (the loop) and `progress` (where it stands), `faults` and `memory` (what goes wrong in it),
`schedule` and `optimizer` (what one step does), `freeze` and `patterns` (parts by name), `adversarial`,
`ema`, `hardware` (device and precision), `processes` (several that train together), `checkpoint` (files),
`observers` (who looks on), `meter` (what a run waits for), `watch` and `sinks` (TensorBoard and others),
`charts`, `manifest` and `reproduction`, `runs` (the folder), `signals` (how a run is stopped).
"""

from detector.engine.adversarial import SelfAdversary
from detector.engine.charts import Charts, ValPicture, plot_history
from detector.engine.checkpoint import (
    load_checkpoint,
    load_newest,
    load_weights,
    save_checkpoint,
)
from detector.engine.ema import WeightAverage
from detector.engine.faults import MemoryFull
from detector.engine.freeze import Frozen, freeze
from detector.engine.hardware import Hardware, compute_deterministically
from detector.engine.manifest import Manifest, read_manifest
from detector.engine.memory import MemoryProbe, even_share, largest_that_fits
from detector.engine.meter import Meter
from detector.engine.observers import (
    BatchLimit,
    BatchPicture,
    Console,
    CsvLog,
    Every,
    Journal,
    Observer,
    SaveCheckpoints,
    TimeLimit,
)
from detector.engine.optimizer import OPTIMIZERS, adamw, parameter_groups, sgd
from detector.engine.processes import Processes
from detector.engine.progress import EpochReport
from detector.engine.reproduction import differences, first_difference, first_losses
from detector.engine.runs import RunFolder
from detector.engine.schedule import SCHEDULES, Curve, Schedule, curve
from detector.engine.signals import stop_on_signals
from detector.engine.sinks import SINKS, Sink, require_sinks
from detector.engine.trainer import FIRST_BATCHES, Stopped, Trainer
from detector.engine.watch import SinkLog

__all__ = [
    "BatchLimit",
    "BatchPicture",
    "Charts",
    "Console",
    "CsvLog",
    "Curve",
    "EpochReport",
    "Every",
    "FIRST_BATCHES",
    "Frozen",
    "Hardware",
    "Journal",
    "Manifest",
    "MemoryFull",
    "MemoryProbe",
    "Meter",
    "OPTIMIZERS",
    "Observer",
    "Processes",
    "RunFolder",
    "SCHEDULES",
    "SINKS",
    "SaveCheckpoints",
    "Schedule",
    "SelfAdversary",
    "Sink",
    "SinkLog",
    "Stopped",
    "TimeLimit",
    "Trainer",
    "ValPicture",
    "WeightAverage",
    "adamw",
    "compute_deterministically",
    "curve",
    "differences",
    "even_share",
    "first_difference",
    "first_losses",
    "freeze",
    "largest_that_fits",
    "load_checkpoint",
    "load_newest",
    "load_weights",
    "parameter_groups",
    "plot_history",
    "read_manifest",
    "require_sinks",
    "save_checkpoint",
    "sgd",
    "stop_on_signals",
]
