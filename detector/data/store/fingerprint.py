"""Counts and a digest that identify the data of a run."""

import hashlib
from typing import Any

import numpy as np

from detector.data.store.index import Index


def fingerprint(index: Index) -> dict[str, Any]:
    """Computes counts and a digest of a split: file names, image sizes, ids, boxes, class names.

    It does not read image files: for COCO that would take minutes.

    Returns:
        "annotations" (where it was read from), "images", "boxes", "crowd", "classes" and "digest".
    """
    state = hashlib.blake2b(digest_size=16)
    for array in (
        *(index.files.blob, index.files.starts, index.image_ids, index.sizes, index.starts),
        *(index.boxes_xyxy, index.labels, index.crowd, index.category_ids),
    ):
        state.update(f"{array.dtype.str} {array.shape} ".encode())
        state.update(np.ascontiguousarray(array).data)
    if index.pixels is not None:
        state.update(index.pixels.data)  # 150 MB of CIFAR take 0.2 s
    state.update(repr(index.names).encode())
    return {
        "annotations": str(index.annotations),
        "images": len(index),
        "boxes": len(index.labels),
        "crowd": int(index.crowd.sum()),
        "classes": len(index.names),
        "digest": state.hexdigest(),
    }
