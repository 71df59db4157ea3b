"""What data a run was trained on, in a few numbers and a digest."""

import hashlib
from typing import Any

import numpy as np

from detector.data.store.index import Index


def fingerprint(index: Index) -> dict[str, Any]:
    """Counts and a digest of a split: of file names, image sizes, ids, boxes, classes and their names.

    The images themselves are not read: a digest of COCO's would take minutes.

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
    state.update(repr(index.names).encode())
    return {
        "annotations": str(index.annotations),
        "images": len(index),
        "boxes": len(index.labels),
        "crowd": int(index.crowd.sum()),
        "classes": len(index.names),
        "digest": state.hexdigest(),
    }
