"""What a user asks of a training run: the configuration, the weights to start from and the folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from detector.config import Config, replace_values
from detector.weights.darknet import DarknetOptions, Weights, read_config
from detector.weights.load import read_weights


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A training run as a user describes it, before anything is built.

    Attributes:
        cfg: a path, a name in `configs/`, or a darknet .cfg.
        folder: of the run; a number is appended if it holds files already.
        overrides: words `dotted.key=value`.
        data: a data YAML in place of the config's.
        weights: a .pt or .weights to start from; sets `train.weights`.
        darknet: how to read a .weights file.
    """

    cfg: str
    folder: Path
    overrides: tuple[str, ...] = ()
    data: str | None = None
    weights: Path | None = None
    darknet: DarknetOptions = field(default_factory=DarknetOptions)

    def with_seed(self, seed: int | str) -> "RunRequest":
        """The same run with another `train.seed`, in the folder NAME-seedN."""
        return replace(
            self,
            folder=self.folder.with_name(f"{self.folder.name}-seed{seed}"),
            overrides=(*self.overrides, f"train.seed={seed}"),
        )

    def load_config(self) -> Config:
        """The configuration, validated.

        Raises:
            UserError: all mistakes, one line each.
        """
        words: Sequence[str] = self.overrides
        if self.weights is not None:
            words = [*words, f"train.weights={json.dumps(str(self.weights.resolve()))}"]
        return read_config(self.cfg, words, data=self.data)

    def load_weights(self, config: Config) -> Weights | None:
        """The weights that `train.weights` of this request's config names; None if it names none.

        Raises:
            UserError: missing, damaged, or of another network.
        """
        path = config.train.weights
        if path is None:
            return None
        if isinstance(config.model.anchors, str):  # the network of the file has the published ones
            config = replace_values(config, {"model.anchors": None})
        return read_weights(Path(path), config, self.darknet)
