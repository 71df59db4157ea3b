"""The typed configuration: `schema` (keys, types, defaults), `loader` (YAML, errors with lines)."""

from detector.config.loader import (
    config_from_dict,
    config_to_dict,
    dump_config,
    find_file,
    load_config,
    load_yaml_as,
)
from detector.config.schema import (
    STRIDES,
    ActivationConfig,
    BagConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    PartActivations,
    TrainConfig,
)

__all__ = [
    "STRIDES",
    "ActivationConfig",
    "BagConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "PartActivations",
    "TrainConfig",
    "config_from_dict",
    "config_to_dict",
    "dump_config",
    "find_file",
    "load_config",
    "load_yaml_as",
]
