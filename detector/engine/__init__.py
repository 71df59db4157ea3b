"""The training loop and what it needs; knows no model, only modules, callables and iterables.

Read `trainer` (the loop), `faults` and `memory` (what goes wrong in it), `schedule` and `optimizer` (what
one step does), `freeze` and `patterns` (parts by name), `adversarial`, `ema`, `hardware` (device and
precision), `processes` (several that train together), `checkpoint` (files), `observers` (who looks on),
`runs` (the folder), `signals` (how a run is stopped).
"""

from detector.engine.adversarial import SelfAdversary
from detector.engine.checkpoint import (
    load_checkpoint,
    load_newest,
    load_weights,
    save_checkpoint,
)
from detector.engine.ema import WeightAverage
from detector.engine.faults import MemoryFull
from detector.engine.freeze import Frozen, freeze
from detector.engine.hardware import Hardware, compute_deterministically, keep_freed_memory
from detector.engine.memory import MemoryProbe, even_share, largest_that_fits
from detector.engine.observers import (
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
from detector.engine.runs import RunFolder
from detector.engine.schedule import SCHEDULES, Curve, Schedule, curve
from detector.engine.signals import stop_on_signals
from detector.engine.trainer import EpochReport, Stopped, Trainer

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "BatchPicture",
    "Console",
    "CsvLog",
    "Curve",
    "EpochReport",
    "Every",
    "Frozen",
    "Hardware",
    "Journal",
    "MemoryFull",
    "MemoryProbe",
    "Observer",
    "Processes",
    "RunFolder",
    "SaveCheckpoints",
    "Schedule",
    "SelfAdversary",
    "Stopped",
    "TimeLimit",
    "Trainer",
    "WeightAverage",
    "adamw",
    "compute_deterministically",
    "curve",
    "even_share",
    "freeze",
    "keep_freed_memory",
    "largest_that_fits",
    "load_checkpoint",
    "load_newest",
    "load_weights",
    "parameter_groups",
    "save_checkpoint",
    "sgd",
    "stop_on_signals",
]
