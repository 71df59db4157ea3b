"""The typed configuration: `schema` (keys, types, defaults), `loader` (YAML, errors with lines)."""

from detector.config.loader import (
    PROJECT,
    config_from_dict,
    config_to_dict,
    dump_config,
    find_file,
    load_config,
    load_yaml_as,
)
from detector.config.schema import (
    LARGEST_STRIDE,
    ActivationConfig,
    BagConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    PartActivations,
    ScheduleConfig,
    TrainConfig,
    TransformConfig,
)

__all__ = [
    "LARGEST_STRIDE",
    "ActivationConfig",
    "BagConfig",
    "Config",
    "DataConfig",
    "DecoderConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "PROJECT",
    "PartActivations",
    "ScheduleConfig",
    "TrainConfig",
    "TransformConfig",
    "config_from_dict",
    "config_to_dict",
    "dump_config",
    "find_file",
    "load_config",
    "load_yaml_as",
]
