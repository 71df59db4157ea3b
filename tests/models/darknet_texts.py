"""Darknet cfg texts for the tests, written by small functions."""


def conv(filters, size=1, stride=1, act="leaky", bn=1, **more):
    lines = ["[convolutional]"]
    lines += ["batch_normalize=1"] if bn else []
    lines += [
        f"filters={filters}",
        f"size={size}",
        f"stride={stride}",
        "pad=1",
        f"activation={act}",
    ]
    return "\n".join(lines + [f"{key}={value}" for key, value in more.items()]) + "\n"


def route(*layers, **more):
    lines = ["[route]", f"layers={','.join(map(str, layers))}"]
    return "\n".join(lines + [f"{key}={value}" for key, value in more.items()]) + "\n"


def yolo(mask, anchors, classes=2, **more):
    lines = ["[yolo]", f"mask={mask}", f"anchors={anchors}", f"classes={classes}", "num=6"]
    lines += ["jitter=.3", "ignore_thresh=.7"]  # only training in darknet reads these
    return "\n".join(lines + [f"{key}={value}" for key, value in more.items()]) + "\n"


def net(side=416, **more):
    lines = ["[net]", f"width={side}", f"height={side}", "channels=3", "batch=64", "momentum=0.9"]
    return "\n".join(lines + [f"{key}={value}" for key, value in more.items()]) + "\n"


POOL = "[maxpool]\nsize=2\nstride=2\n"
UP = "[upsample]\nstride=2\n"
TINY_SIZES = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


def tiny(classes=80):
    """yolov4-tiny, as its table in the facts says; the second half of the channels."""
    parts = [net(416), conv(32, 3, 2), conv(64, 3, 2)]
    for c in (64, 128, 256):
        parts += [conv(c, 3), route(-1, groups=2, group_id=1)]
        parts += [conv(c // 2, 3), conv(c // 2, 3), route(-1, -2), conv(c)]
        parts += [route(-6, -1), POOL]
    out = 3 * (5 + classes)
    parts += [conv(512, 3), conv(256), conv(512, 3), conv(out, act="linear", bn=0)]
    parts += [yolo("3,4,5", TINY_SIZES, classes, scale_x_y=1.05)]
    parts += [route(-4), conv(128), UP, route(-1, 23), conv(256, 3), conv(out, act="linear", bn=0)]
    parts += [yolo("1,2,3", TINY_SIZES, classes, scale_x_y=1.05)]
    return "\n".join(parts)


def everything(new_coords=0, classes=2):
    """A small network with every section and activation that the reader knows."""
    out, last = 3 * (5 + classes), "logistic" if new_coords else "linear"
    scale = 2.0 if new_coords else 1.1
    return "\n".join(
        [
            net(64),
            conv(8, 3, act="mish"),  # 0
            conv(16, 3, 2, act="swish"),
            conv(16, 1, act="relu", groups=4),
            conv(16, 3, act="linear"),  # 3
            "[shortcut]\nfrom=-3\nactivation=linear\n",
            "[dropout]\nprobability=.2\n",
            POOL,  # 6
            conv(24, 3, act="leaky", bn=0),
            "[maxpool]\nsize=5\nstride=1\n",
            "[maxpool]\nsize=2\nstride=1\n",  # 9
            route(-1, -3),
            conv(32, 3, 2, act="mish"),  # 11, stride 8
            conv(32, 3, 2, act="logistic"),  # 12, stride 16
            conv(out, act=last, bn=0),
            yolo("3,4,5", TINY_SIZES, classes, scale_x_y=scale, new_coords=new_coords),
            route(12),
            conv(16, act="mish"),
            UP,
            route(-1, 11),
            route(-1, groups=2, group_id=0),  # OpenCV takes groups of one layer only
            conv(out, act=last, bn=0),
            yolo("0,1,2", TINY_SIZES, classes, scale_x_y=scale, new_coords=new_coords),
        ]
    )
