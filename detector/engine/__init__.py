"""The training loop and what it needs; knows no model, only modules, callables and iterables.

Read `trainer` (the loop), `schedule` and `optimizer` (what one step does), `ema`, `hardware`
(device and precision), `processes` (several that train together), `checkpoint` (files), `observers` (who
looks on), `runs` (the folder), `signals` (how a run is stopped).
"""

from detector.engine.checkpoint import (
    load_checkpoint,
    load_newest,
    load_weights,
    save_checkpoint,
)
from detector.engine.ema import WeightAverage
from detector.engine.hardware import Hardware, keep_freed_memory
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
from detector.engine.optimizer import parameter_groups, sgd
from detector.engine.processes import Processes
from detector.engine.runs import RunFolder
from detector.engine.schedule import Schedule
from detector.engine.signals import stop_on_signals
from detector.engine.trainer import EpochReport, Stopped, Trainer

__all__ = [
    "BatchPicture",
    "Console",
    "CsvLog",
    "EpochReport",
    "Every",
    "Hardware",
    "Journal",
    "Observer",
    "Processes",
    "RunFolder",
    "SaveCheckpoints",
    "Schedule",
    "Stopped",
    "TimeLimit",
    "Trainer",
    "WeightAverage",
    "keep_freed_memory",
    "load_checkpoint",
    "load_newest",
    "load_weights",
    "parameter_groups",
    "save_checkpoint",
    "sgd",
    "stop_on_signals",
]
