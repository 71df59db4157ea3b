"""A small network whose scores spread over (0, 1), and the metadata of its exported files."""

import torch

from detector.build import build_model
from detector.config import Config, config_to_dict, replace_values
from detector.engine import save_checkpoint
from detector.export import ExportMetadata
from tests.models import darknet_texts as texts
from tests.models.networks import randomize_norms

SIZE, CLASSES = 64, 10
CFG = "\n".join(
    [
        texts.net(SIZE),
        texts.conv(8, 3, 2, act="mish"),
        texts.conv(8, 3, 2, act="mish"),
        texts.conv(8, 3, 2, act="leaky"),
        texts.conv(3 * (5 + CLASSES), act="linear", bn=0),
        texts.yolo("0,1,2", texts.TINY_SIZES, CLASSES, scale_x_y=1.1),
    ]
)


def make_config(dataset="digits.yaml"):
    values = {"model.darknet_cfg": CFG, "model.arch": "small", "data.size": SIZE}
    values |= {"data.dataset": str(dataset), "data.workers": 0, "train.threads": 1}
    return replace_values(Config(), values)


def make_model():
    torch.manual_seed(0)
    model = randomize_norms(build_model(make_config().model, CLASSES))
    (output,) = (
        each
        for each in model.modules()
        if getattr(each, "bias", None) is not None and isinstance(each, torch.nn.Conv2d)
    )
    with torch.no_grad():
        output.weight.view(3, 5 + CLASSES, -1)[:, 4:] *= 20
        output.bias.view(3, -1)[:, 4:] = 0
    return model


def describe(**changes):
    values = {
        "names": tuple("0123456789"),
        "strides": (8,),
        "decoder": "exp",
        "precision": "fp32",
        "shape": None,
        "size": SIZE,
        "nms": False,
        "conf": 0.05,
        "nms_iou": 0.65,
        "max_detections": 20,
        "config": config_to_dict(make_config()),
    }
    return ExportMetadata(**(values | changes))


def save_small(path, config):
    """Writes the network as a checkpoint."""
    content = {"config": config_to_dict(config), "names": list("0123456789")}
    save_checkpoint(path, {**content, "weights": make_model().state_dict()})
    return path
