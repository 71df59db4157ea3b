"""Pictures of what each switch of the bag does, for `tools/show_batch.py`."""

import json
from dataclasses import dataclass, fields

import numpy as np

from detector.build import build_preview_sampler, build_preview_set, is_classifier
from detector.config import BagConfig, Config, config_from_dict, config_to_dict
from detector.data import Bag, ClassBag, TrainSet
from detector.visualize.draw import caption_ground_truth, contact_sheet

# Probabilities are shown as 1, other switches at the config's strength or, if off there, at this one.
PROBABILITIES = ("mosaic", "paste", "cutmix", "mixup", "flip_lr", "flip_ud", "erase")
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
    "noise": 0.1,
    "crop": "resized",
    "albumentations": [{"name": "GaussNoise", "p": 1.0}, {"name": "RandomRotate90", "p": 1.0}],
}


def list_switches(config: Config) -> list[str]:
    """The switches of the bag that a config's kind of network has, in the schema's order."""
    kind = ClassBag if is_classifier(config.model) else Bag
    known = {field.name for field in fields(kind)} | {"multi_scale", "albumentations"}
    shown = known & {*PROBABILITIES, *STRENGTHS}
    return [key for key in BagConfig.model_fields if key in shown]


@dataclass(frozen=True, slots=True)
class AugmentationPreview:
    """One picture per switch: unchanged images, and below each the same image with that switch alone.

    Attributes:
        config: gives the strengths of the switches that are on.
        dataset: the images.
        names: the class names, by label.
        images: how many, side by side.
    """

    config: Config
    dataset: TrainSet
    names: tuple[str, ...]
    images: int = 4

    def isolate(self, switch: str) -> Config:
        """The config with a bag of this switch alone."""
        values = config_to_dict(self.config)
        off = config_to_dict(config_from_dict(values, "preview", ["bag=none"]))["bag"][switch]
        strength = values["bag"][switch]
        if switch in PROBABILITIES:
            strength = 1.0
        elif strength == off:
            strength = STRENGTHS[switch]
        overrides = ["bag=none", f"bag.{switch}={json.dumps(strength)}"]
        if switch == "mosaic9":  # a share of the mosaics
            overrides.append("bag.mosaic=1.0")
        return config_from_dict(values, "preview", overrides)

    def draw(self, switch: str, epoch: int) -> np.ndarray:
        """The picture of one switch, uint8 [H, W, 3], RGB."""
        config = self.isolate(switch)
        plain = config_from_dict(config_to_dict(config), "preview", ["bag=none"])
        unchanged, augmented = (
            build_preview_set(each, self.dataset, epoch) for each in (plain, config)
        )
        sampler = build_preview_sampler(config, self.dataset)
        sampler.epoch = epoch
        above, below = [], []
        for (key,) in sampler:
            before, after = unchanged[key[:2]].sample, augmented[key].sample
            if before is not None and after is not None:
                above.append(caption_ground_truth(before, self.names))
                below.append(caption_ground_truth(after, self.names))
            if len(above) == self.images:
                break
        return contact_sheet([*above, *below], columns=len(above))
