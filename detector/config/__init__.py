"""The typed configuration.

Read `schema` first (keys, types, defaults; `bag_schema` has those of the bag, `ranges` the bounds), then
`bags` (the named ones), `parse` (files and words of the command line -> a frozen `Config`, and changes to
one), `yaml_tree` (YAML that remembers its lines and its words), `descriptions` (where the
project's YAML files are) and `written_paths` (paths with backslashes).
"""

from detector.config.bag_schema import BagConfig, TransformConfig
from detector.config.descriptions import (
    content_folder,
    description_folder,
    find_file,
    folder_of,
)
from detector.config.parse import (
    changed_keys,
    config_from_dict,
    config_to_dict,
    dump_config,
    load_config,
    load_yaml_as,
    replace_values,
)
from detector.config.schema import (
    ADAMW,
    ADAMW_LR_LIMIT,
    LARGEST_STRIDE,
    MIN_TILE_BUFFER,
    RECIPE_KEYS,
    ActivationConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    PartActivations,
    ScheduleConfig,
    TrainConfig,
)
from detector.config.written_paths import find_written, is_of_windows
from detector.config.yaml_tree import AsWritten

__all__ = [
    "ADAMW",
    "ADAMW_LR_LIMIT",
    "RECIPE_KEYS",
    "LARGEST_STRIDE",
    "MIN_TILE_BUFFER",
    "ActivationConfig",
    "AsWritten",
    "BagConfig",
    "Config",
    "DataConfig",
    "DecoderConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "PartActivations",
    "ScheduleConfig",
    "TrainConfig",
    "TransformConfig",
    "changed_keys",
    "config_from_dict",
    "config_to_dict",
    "content_folder",
    "description_folder",
    "dump_config",
    "find_file",
    "find_written",
    "folder_of",
    "is_of_windows",
    "load_config",
    "load_yaml_as",
    "replace_values",
]
