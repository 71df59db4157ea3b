"""Which runs record their passes as CUDA graphs, and what they say otherwise."""

import pytest
import torch

from detector.build import choose_capture
from detector.config import load_config
from detector.device import Hardware
from detector.distributed import ProcessGroup

CPU = Hardware(torch.device("cpu"), "fp32", torch.channels_last)
GPU = Hardware(torch.device("cuda"), "fp16", torch.channels_last)


@pytest.mark.parametrize(
    ("cfg", "hardware", "words", "captures", "says"),
    [
        ("yolov4-pacsp-n-mish", GPU, [], True, ""),
        ("yolov4-pacsp-n-mish", GPU, ["train.capture=true"], True, ""),
        ("yolov4-pacsp-n-mish", GPU, ["train.capture=false"], False, ""),
        ("yolov4-pacsp-n-mish", GPU, ["train.compile=true"], False, "train.compile has its own"),
        (
            *("yolov4-pacsp-n-mish", GPU, ["train.activation_checkpointing=true"]),
            *(False, "runs blocks again"),
        ),
        ("yolov4-pacsp-n-mish", GPU, ["bag.dropblock=0.1"], False, "bag.dropblock changes the"),
        ("cnn6-mish-cls", GPU, [], False, "not for classifiers"),
        ("yolov4-pacsp-n-mish", CPU, [], False, ""),
        ("yolov4-pacsp-n-mish", CPU, ["train.capture=true"], False, "need an NVIDIA GPU"),
    ],
)
def test_capture(cfg, hardware, words, captures, says):
    chosen, line = choose_capture(load_config(cfg, words), hardware, ProcessGroup())
    assert chosen is captures
    assert (says in line) if says else not line
    assert not line or line.startswith("train.capture: off: ")
