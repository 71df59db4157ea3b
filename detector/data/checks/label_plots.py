"""Plots of labels: histograms, and a contact sheet of labelled images."""

from pathlib import Path

import numpy as np

from detector.boxes import box_sizes
from detector.data.image_reader import ImageReader
from detector.data.scaled_boxes import letterboxed_box_sizes
from detector.data.store.image_files import UnreadableImage
from detector.data.store.index import Index
from detector.visualize.draw import Picture, contact_sheet, save_image
from detector.visualize.figures import escape_name, fonts_for_names

SHOWN_CLASSES = 25
SHEET = 16  # images


@fonts_for_names()
def plot_labels(path: Path, index: Index, *, size: int, anchors: np.ndarray | None) -> None:
    """Plots classes, sizes, aspect ratios, positions and counts of a split's boxes as a PNG.

    Args:
        path: to write.
        index: of the split.
        size: of the training image, pixels.
        anchors: [k, 2], pixels, drawn among the sizes.
    """
    from matplotlib.figure import Figure

    objects = ~index.crowd
    owner = index.box_image_numbers()[objects]
    counts = np.bincount(index.labels[objects], minlength=len(index.names))
    order = np.argsort(-counts, kind="stable")[:SHOWN_CLASSES]
    sizes = letterboxed_box_sizes(index, size)[objects]
    boxes = index.boxes_xyxy[objects].astype(np.float64)
    centres = (boxes[:, :2] + box_sizes(boxes) / 2) / index.sizes[owner, ::-1]  # [m, 2], 0..1

    figure = Figure(figsize=(15, 9), layout="constrained")
    classes, joint, centers, size_axes, aspect, per_image = figure.subplots(2, 3).flat
    classes.bar(np.arange(len(order)), counts[order])
    classes.set_xticks(
        np.arange(len(order)),
        [escape_name(index.names[label]) for label in order],
        rotation=90,
        fontsize=8,
    )
    rest = len(counts) - len(order)
    classes.set(title="boxes by class" + (f" ({rest} more classes)" if rest else ""))

    edges = np.geomspace(1, size, 49)
    _, _, _, image = joint.hist2d(*sizes.clip(1, size).T, bins=[edges, edges], cmin=1)
    figure.colorbar(image, ax=joint)
    if anchors is not None:
        joint.plot(*anchors.T, "r+", markersize=12, markeredgewidth=2, label="anchors")
        joint.legend(loc="upper left")
    joint.set(title=f"sizes at {size} px", xlabel="width, px", ylabel="height, px")
    joint.set(xscale="log", yscale="log", aspect="equal")

    _, _, _, image = centers.hist2d(*centres.T, bins=32, range=[[0, 1], [0, 1]])
    figure.colorbar(image, ax=centers)
    centers.invert_yaxis()
    centers.set(title="centres", xlabel="x / width", ylabel="y / height", aspect="equal")

    size_axes.hist(np.sqrt(sizes.prod(1)), bins=edges)
    size_axes.set(title="sqrt(width * height)", xlabel="px", ylabel="boxes", xscale="log")
    aspect.hist(sizes[:, 0] / sizes[:, 1], bins=np.geomspace(0.1, 10, 41))
    aspect.set(title="width / height", ylabel="boxes", xscale="log")
    number = np.bincount(owner, minlength=len(index))
    per_image.hist(number, bins=np.arange(number.max(initial=0) + 2) - 0.5)
    per_image.set(title="boxes per image", ylabel="images")
    per_image.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(path, dpi=100)


def plot_sheet(path: Path, index: Index, *, seed: int = 0) -> None:
    """Draws random labelled images of a split with their boxes; the same seed gives the same images."""
    labelled = np.unique(index.box_image_numbers())
    chosen = np.random.default_rng(seed).permutation(labelled)
    reader = ImageReader(index)
    pictures: list[Picture] = []
    for number in chosen:
        try:
            sample = reader.read(int(number))
        except UnreadableImage:
            continue  # the report names it
        words = [index.names[label] for label in sample.labels]
        boxes = np.concatenate([sample.boxes_xyxy, sample.ignore_xyxy])
        pictures.append((sample.image, boxes, words + ["crowd"] * len(sample.ignore_xyxy)))
        if len(pictures) == SHEET:
            break
    save_image(path, contact_sheet(pictures))
