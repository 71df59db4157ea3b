"""Pictures of what each switch of the bag does, for `tools/show_batch.py`."""

import json
from dataclasses import dataclass

import numpy as np

from detector.build import build_bag, build_train_sizes
from detector.config import BagConfig, Config, config_from_dict, config_to_dict
from detector.data import Bag, EpochSampler, TrainSet
from detector.visualize.draw import caption_ground_truth, contact_sheet

PROBABILITIES = ("mosaic", "paste", "cutmix", "mixup", "flip_lr", "flip_ud", "erase")  # shown as 1
# and how strong the others are shown where the config has them off
STRENGTHS = {
    "mosaic9": 1.0,
    "multi_scale": 1.5,
    "scale": 0.5,
    "translate": 0.2,
    "degrees": 15.0,
    "shear": 10.0,
    "perspective": 0.2,
    "hsv_h": 0.1,
    "hsv_s": 0.7,
    "hsv_v": 0.4,
    "albumentations": [{"name": "GaussNoise", "p": 1.0}, {"name": "RandomRotate90", "p": 1.0}],
}
SWITCHES = tuple(
    key for key in BagConfig.model_fields if key in PROBABILITIES or key in STRENGTHS
)  # in the schema's order


@dataclass(frozen=True, slots=True)
class Showcase:
    """One picture a switch: images as they are, and below each what the switch alone makes of it.

    Attributes:
        config: whose strengths are shown, where it has the switch on.
        dataset: the images.
        names: the class names, by label.
        images: how many, side by side.
    """

    config: Config
    dataset: TrainSet
    names: tuple[str, ...]
    images: int = 4

    def alone(self, switch: str) -> Config:
        """The config with a bag of this switch alone."""
        values = config_to_dict(self.config)
        off = config_to_dict(config_from_dict(values, "showcase", ["bag=none"]))["bag"][switch]
        shown = values["bag"][switch]
        if switch in PROBABILITIES:
            shown = 1.0
        elif shown == off:
            shown = STRENGTHS[switch]
        words = ["bag=none", f"bag.{switch}={json.dumps(shown)}"]
        if switch == "mosaic9":  # a share of the mosaics
            words.append("bag.mosaic=1.0")
        return config_from_dict(values, "showcase", words)

    def picture(self, switch: str, epoch: int) -> np.ndarray:
        """The picture of one switch, uint8 [H, W, 3], RGB."""
        config, data = self.alone(switch), self.dataset
        plain, changed = (
            TrainSet(data.reader, bag, size=data.size, seed=data.seed, mosaic_until=epoch + 1)
            for bag in (Bag(), build_bag(config.bag, mirrors=True))
        )
        keys = EpochSampler(data.order, 1, sides=build_train_sizes(config))
        keys.epoch = epoch
        above, below = [], []
        for (key,) in keys:
            before, after = plain[key[:2]].sample, changed[key].sample
            if before is not None and after is not None:
                above.append(caption_ground_truth(before, self.names))
                below.append(caption_ground_truth(after, self.names))
            if len(above) == self.images:
                break
        return contact_sheet([*above, *below], columns=len(above))
