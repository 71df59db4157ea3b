"""Detection in single images with a trained model."""

from collections.abc import Callable

import numpy as np

from detector.build import build_placement, build_postprocess
from detector.data import LoadedSample, collate, sample_without_labels
from detector.engine import Hardware
from detector.evaluation import predict
from detector.structures import Detections
from detector.weights.load import LoadedModel


def make_detector(
    loaded: LoadedModel, hardware: Hardware, *, conf: float
) -> Callable[[np.ndarray], Detections]:
    """A function that detects objects in an image.

    Args:
        loaded: from `load_model`.
        hardware: where to run.
        conf: confidence threshold in [0, 1].

    Returns:
        A function from an image, uint8 [H, W, 3] RGB, to its detections, in pixels of the image.
    """
    model = hardware.place(loaded.model)
    config = loaded.config
    postprocess, placement = build_postprocess(config.eval, conf), build_placement(config)

    def detect(image: np.ndarray) -> Detections:
        size = np.array([image.shape[:2]])
        _, (shape,) = placement.plan(size, 1)
        batch = collate([LoadedSample(*placement.place(sample_without_labels(image), shape))])
        ((detected,),) = predict(model, [batch], postprocess, hardware=hardware)
        return detected.detections

    return detect
