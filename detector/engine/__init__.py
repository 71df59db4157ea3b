"""The training loop and what it needs; knows no model, only modules, callables and iterables.

Read `trainer` (the loop), `training_step` (forward to EMA) with `micro_batch`, and `progress` (the state
of a run), then `nonfinite` and `out_of_memory` (steps that fail), `cuda_graphs`, `schedule`,
`optimizer`, `patterns` and `freeze` (parameters by name), `adversarial`, `ema`, `checkpoint` (the file),
`run_folder` (the folder and its lock), `memory_probe` (batch size auto), `observers/` (console, files,
trackers ...), `reproduction` (are two runs equal to the bit?) and `signals` (stop on SIGINT and SIGTERM).
"""

from detector.device import Hardware, compute_deterministically
from detector.distributed import ProcessGroup
from detector.engine.adversarial import SelfAdversary
from detector.engine.checkpoint import (
    load_checkpoint,
    load_newest,
    load_weights,
    require_same_shapes,
    save_checkpoint,
)
from detector.engine.checkpoint_content import reading_checkpoint
from detector.engine.cuda_graphs import find_capture_obstacle
from detector.engine.ema import ModelEMA
from detector.engine.freeze import Frozen, freeze
from detector.engine.memory_probe import MemoryProbe, divide_nominal_batch, find_max_batch_size
from detector.engine.micro_batch import MicroBatch
from detector.engine.observers.base import Observer
from detector.engine.observers.console import Console
from detector.engine.observers.files import (
    CheckpointInterval,
    CheckpointSaver,
    CsvLog,
    EventLog,
    LastEvaluation,
    TrainBatchPicture,
)
from detector.engine.observers.limits import BatchLimit, TimeLimit
from detector.engine.observers.manifest import Manifest, read_manifest
from detector.engine.observers.plots import RunPlots, ValBatchPicture, plot_history
from detector.engine.observers.throughput import ThroughputMonitor
from detector.engine.observers.trackers import TRACKERS, Tracker, TrackerLog, require_trackers
from detector.engine.optimizer import OPTIMIZERS, adamw, group_parameters, sgd
from detector.engine.out_of_memory import MemoryFull
from detector.engine.progress import EpochReport
from detector.engine.reproduction import compare_losses, compare_manifests, read_first_losses
from detector.engine.run_folder import RunFolder
from detector.engine.schedule import SCHEDULES, LRCurve, Schedule, make_lr_curve
from detector.engine.signals import stop_on_signals
from detector.engine.trainer import FIRST_BATCHES, Stopped, Trainer
from detector.engine.training_step import TrainerOptions

__all__ = [
    "BatchLimit",
    "TrainBatchPicture",
    "RunPlots",
    "Console",
    "CsvLog",
    "LRCurve",
    "LastEvaluation",
    "EpochReport",
    "CheckpointInterval",
    "FIRST_BATCHES",
    "Frozen",
    "Hardware",
    "find_capture_obstacle",
    "EventLog",
    "Manifest",
    "MemoryFull",
    "MemoryProbe",
    "ThroughputMonitor",
    "OPTIMIZERS",
    "Observer",
    "ProcessGroup",
    "RunFolder",
    "SCHEDULES",
    "TRACKERS",
    "CheckpointSaver",
    "Schedule",
    "SelfAdversary",
    "Tracker",
    "TrackerLog",
    "Stopped",
    "TimeLimit",
    "MicroBatch",
    "Trainer",
    "TrainerOptions",
    "ValBatchPicture",
    "ModelEMA",
    "adamw",
    "compute_deterministically",
    "make_lr_curve",
    "compare_manifests",
    "divide_nominal_batch",
    "compare_losses",
    "read_first_losses",
    "freeze",
    "find_max_batch_size",
    "load_checkpoint",
    "load_newest",
    "load_weights",
    "reading_checkpoint",
    "require_same_shapes",
    "group_parameters",
    "plot_history",
    "read_manifest",
    "require_trackers",
    "save_checkpoint",
    "sgd",
    "stop_on_signals",
]
