"""Equal and nearly equal images, inside a split and across splits.

Equal files have equal digests. A pair of images is similar if their 128-bit hashes share one of eight
16-bit words (always the case if they differ in up to seven bits) and differ in at most `MAX_BITS`, and
if their thumbnails agree. This is far cheaper than comparing every pair.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from detector.data.checks.images import Scan
from detector.data.checks.labels import image_name
from detector.data.checks.problems import Problem
from detector.data.store.index import Index

# With these limits, all inspected pairs among 1,440 images of digits and 137 of COCO show the same scene.
# Copies of the 137 at a quarter of the size and jpeg quality 50 are all detected, those cropped by 2 % in
# 86 % of the cases.
MAX_BITS = 14  # of 128
MAX_RESIDUE = 0.3  # RMS difference of thumbnails over the larger contrast: correlation about 0.95
NOISE = 2.0  # grey levels that thumbnails may always differ by, even at low contrast
_PAIRS = 500_000  # candidate pairs at a time

Pairs = np.ndarray  # int64 [p, 2], rows of two images, the earlier one first


def check_duplicates(splits: Mapping[str, Index], scans: Mapping[str, Scan]) -> list[Problem]:
    """Finds equal and similar images, within a split and across splits."""
    names = list(splits)
    split = np.repeat(np.arange(len(names)), [len(scans[name].numbers) for name in names])
    shown = [image_name(splits[name], i) for name in names for i in scans[name].numbers]
    digests, hashes, thumbnails = (
        np.concatenate([getattr(scans[name], part) for name in names])
        for part in ("digests", "hashes", "thumbnails")
    )
    equal = find_equal_pairs(digests, split)
    unique = np.setdiff1d(np.arange(len(split)), equal[:, 1])  # equal files are compared once
    similar = unique[find_similar_pairs(hashes[unique], thumbnails[unique], split[unique])]
    problems = []
    for word, pairs in (("same", equal), ("similar", similar)):
        across = split[pairs[:, 0]] != split[pairs[:, 1]]
        for where, chosen in (("in two splits", pairs[across]), ("twice", pairs[~across])):
            if len(chosen):
                words = (f"{shown[later]} = {shown[earlier]}" for earlier, later in chosen)
                if word == "similar":
                    words = (line.replace(" = ", " ~ ") for line in words)
                problems.append(
                    Problem.collect(f"{word} image {where}", len(chosen), len(split), words)
                )
    return problems


def find_equal_pairs(digests: np.ndarray, split: np.ndarray) -> Pairs:
    """Pairs each image with the first one equal to it, which may be in an earlier split.

    Args:
        digests: of n contents.
        split: int64 [n], ascending.
    """
    _, group = np.unique(digests, return_inverse=True)
    order = np.argsort(group, kind="stable")
    first_of_group = order[np.searchsorted(group[order], np.arange(len(order)))[group]]  # [n]
    rows = np.arange(len(group))
    later = first_of_group != rows
    return np.stack([first_of_group[later], rows[later]], 1)


def find_similar_pairs(hashes: np.ndarray, thumbnails: np.ndarray, split: np.ndarray) -> Pairs:
    """Pairs each image with the most similar earlier one of its own split, and of any other split.

    Args:
        hashes: uint8 [n, 16]. thumbnails: uint8 [n, 16, 16].
        split: int64 [n], ascending.
    """
    count = len(hashes)
    words = np.ascontiguousarray(hashes).view(np.uint64)  # [n, 2]
    pictures = thumbnails.reshape(count, math.prod(thumbnails.shape[1:])).astype(np.float32)
    pictures -= pictures.mean(1, keepdims=True)  # ignores brightness
    contrast = np.sqrt((pictures**2).mean(1))
    # the minimum of bits * n + partner for each image: first within its split, then across splits
    best = np.full(2 * count, np.iinfo(np.int64).max)
    for earlier, later in _find_candidates(hashes):
        bits = np.bitwise_count(words[earlier] ^ words[later]).sum(1, dtype=np.int64)
        slot = later + count * (split[earlier] != split[later])
        key = bits * count + earlier
        better = (bits <= MAX_BITS) & (key < best[slot])
        slot, key = slot[better], key[better]
        order = np.lexsort((key, slot))
        slot, key = slot[order], key[order]
        at = np.flatnonzero(
            np.diff(slot, prepend=-1)
        )  # best candidate of each slot, then the next best
        while len(at):
            one, other = key[at] % count, slot[at] % count
            residue = np.sqrt(((pictures[one] - pictures[other]) ** 2).mean(1))
            limit = np.maximum(MAX_RESIDUE * np.maximum(contrast[one], contrast[other]), NOISE)
            alike = residue <= limit
            best[slot[at[alike]]] = key[at[alike]]
            at = at[~alike] + 1
            at = at[(at < len(slot)) & (slot[np.minimum(at, len(slot) - 1)] == slot[at - 1])]
    matched = np.flatnonzero(best < np.iinfo(np.int64).max)
    return np.stack([best[matched] % max(count, 1), matched % max(count, 1)], 1)


def _find_candidates(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs (earlier, later), int64 [p] each, that share a 16-bit word; some more than once."""
    for word in np.ascontiguousarray(hashes).view(np.uint16).T:
        order = np.argsort(word, kind="stable")
        ranked = word[order]
        place = np.arange(len(order))
        start = np.searchsorted(ranked, ranked)  # of each row's group
        before = place - start  # earlier rows of its group
        until = np.cumsum(before)
        at = 0
        while at < len(order):
            base = until[at - 1] if at else 0
            end = max(int(np.searchsorted(until, base + _PAIRS)), at + 1)
            counts = before[at:end]
            later = np.repeat(place[at:end], counts)
            offset = np.arange(len(later)) - np.repeat(np.cumsum(counts) - counts, counts)
            earlier = start[later] + offset
            yield order[earlier], order[later]
            at = end
