"""The family as data: one row of widths and depths a network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """Widths and depths of one network.

    Attributes:
        stem: channels of the first convolution, at full resolution.
        channels: c1..c5, output channels of the stages (strides 2, 4, 8, 16, 32).
        stage1_hidden: bottleneck width of the one residual unit in stage 1.
        depths: residual units in stages 1..5.
        neck: width w of the neck at stride 32 (w/2 and w/4 at 16 and 8).
        neck_depth: (1x1, 3x3) pairs in each of the four neck blocks.
        spp_before, spp_after: kernel sizes around the pools of the SPP block.
    """

    stem: int
    channels: tuple[int, int, int, int, int]
    stage1_hidden: int
    depths: tuple[int, int, int, int, int]
    neck: int
    neck_depth: int
    spp_before: tuple[int, ...]
    spp_after: tuple[int, ...]


VARIANTS = {
    # not published: a sibling of -s small enough to train on two CPU cores in minutes
    "yolov4-pacsp-n": Variant(
        stem=8,
        channels=(16, 32, 64, 128, 192),
        stage1_hidden=8,
        depths=(1, 1, 1, 1, 1),
        neck=96,
        neck_depth=1,
        spp_before=(1,),
        spp_after=(1, 3),
    ),
    "yolov4-pacsp-s": Variant(
        stem=32,
        channels=(32, 64, 128, 256, 512),
        stage1_hidden=32,  # not 16: as published
        depths=(1, 1, 1, 1, 1),
        neck=256,
        neck_depth=1,
        spp_before=(1,),
        spp_after=(1, 3),
    ),
    "yolov4-pacsp": Variant(
        stem=32,
        channels=(64, 128, 256, 512, 1024),
        stage1_hidden=32,
        depths=(1, 2, 8, 8, 4),
        neck=512,
        neck_depth=2,
        spp_before=(1, 3, 1),
        spp_after=(1, 3),
    ),
    "yolov4-pacsp-x": Variant(
        stem=32,
        channels=(80, 160, 320, 640, 1280),
        stage1_hidden=40,
        depths=(1, 3, 10, 10, 5),
        neck=640,
        neck_depth=3,
        spp_before=(1, 3, 1),
        spp_after=(1, 3, 1, 3),
    ),
}
