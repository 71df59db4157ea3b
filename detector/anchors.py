"""Anchors: how well they fit the boxes of a data set, and a search for better ones.

Sizes are (width, height) in pixels of the training image, numpy float64. `cluster_anchors` finds
anchors by k-means on IoU (Redmon & Farhadi, *YOLO9000*, section 2) and refines them by a (1+1)
evolution strategy whose step follows the one-fifth rule (Rechenberg 1973); `measure_fit` rates
any anchors.
"""

from dataclasses import dataclass

import numpy as np

Anchors = tuple[tuple[tuple[float, float], ...], ...]

MIN_SIDE = 2.0  # px; smaller boxes are annotation errors or too small to learn
SAMPLE = 20_000  # boxes that the search uses; the fit is always measured on all of them
GENERATIONS = 3_000  # on COCO-like sizes the last third gains less than 0.001 of mean IoU
RESTARTS = 4  # of k-means
_CHUNK = 100_000  # boxes at a time, to limit memory


@dataclass(frozen=True, slots=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        boxes: how many were compared.
        mean_iou: of each box with its best anchor, both at the same centre; in [0, 1].
        matched: share of the boxes that training assigns to at least one anchor; in [0, 1].
    """

    boxes: int
    mean_iou: float
    matched: float

    def __str__(self) -> str:
        return (
            f"mean best IoU {self.mean_iou:.3f}, {self.matched:.2%} of {self.boxes:,} boxes matched"
        )


def size_iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """IoU [n, k] of boxes [n, 2] with anchors [k, 2] at the same centre."""
    inner = np.minimum(sizes[:, None], anchors[None]).prod(-1)
    return inner / (sizes.prod(-1)[:, None] + anchors.prod(-1)[None] - inner)


def size_ratio(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The larger ratio [n, k], >= 1, of the widths or heights of boxes [n, 2] and anchors [k, 2].

    `detector.losses.assign` assigns a box to the anchors whose ratio is below `loss.anchor_ratio`.
    """
    ratio = sizes[:, None] / anchors[None]  # [n, k, 2]
    return np.maximum(ratio, 1 / ratio).max(-1)


def find_unmatched(sizes: np.ndarray, anchors: np.ndarray, ratio: float) -> np.ndarray:
    """Mask [n] of boxes [n, 2] that are assigned to none of the anchors [k, 2]."""
    parts = [
        size_ratio(sizes[at : at + _CHUNK], anchors).min(1) >= ratio
        for at in range(0, len(sizes), _CHUNK)
    ]
    return np.concatenate([np.zeros(0, bool), *parts])


def measure_fit(sizes: np.ndarray, anchors: np.ndarray, ratio: float) -> AnchorFit:
    """Measures the fit of anchors [k, 2] to boxes [n, 2], n > 0."""
    best = sum(
        float(size_iou(sizes[at : at + _CHUNK], anchors).max(1).sum())
        for at in range(0, len(sizes), _CHUNK)
    )
    matched = 1 - float(find_unmatched(sizes, anchors, ratio).mean())
    return AnchorFit(len(sizes), best / len(sizes), matched)


def flatten_anchors(anchors: Anchors) -> np.ndarray:
    """The anchors of all levels, float64 [k, 2]."""
    return np.array([size for level in anchors for size in level], np.float64).reshape(-1, 2)


def split_by_level(anchors: np.ndarray, levels: int) -> Anchors:
    """Rounds anchors [k, 2] to 0.1 px, sorts them by area and splits them evenly over the levels."""
    order = np.lexsort((anchors[:, 0], anchors.prod(-1)))
    pairs = [(float(w), float(h)) for w, h in np.round(anchors[order], 1).clip(min=0.1)]
    each = len(pairs) // levels
    return tuple(tuple(pairs[at : at + each]) for at in range(0, len(pairs), each))


def cluster_anchors(sizes: np.ndarray, start: Anchors, *, ratio: float, seed: int = 0) -> Anchors:
    """Finds anchors for boxes [n, 2]: as many, on as many levels, as `start` has.

    Maximises the mean IoU of a box with its best anchor plus the share of matched boxes: boxes that no
    anchor matches are never learnt. The search starts from the best of several clusterings and `start`,
    and accepts no decrease. The same boxes and seed give the same anchors.

    Raises:
        ValueError: fewer distinct sizes, `MIN_SIDE` or larger, than anchors.
    """
    count = len(flatten_anchors(start))
    usable = sizes[(sizes >= MIN_SIDE).all(1)]
    distinct = len(np.unique(usable, axis=0))
    if distinct < count:
        raise ValueError(
            f"{count} anchors need boxes of at least {count} distinct sizes, {MIN_SIDE:g} px or "
            f"more; there are {distinct}"
        )
    rng = np.random.default_rng(seed)
    if len(usable) > SAMPLE:
        usable = usable[rng.choice(len(usable), SAMPLE, replace=False)]
    candidates = [flatten_anchors(start), *(_kmeans(usable, count, rng) for _ in range(RESTARTS))]
    best = max(candidates, key=lambda anchors: _Search(usable, anchors, ratio).fitness)
    return split_by_level(_refine(usable, best, ratio, rng), len(start))


def _kmeans(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Clusters [count, 2] by the distance 1 - IoU, seeded as k-means++ does."""
    centres = sizes[[rng.integers(len(sizes))]]
    while len(centres) < count:
        distance = 1 - size_iou(sizes, centres).max(1)
        weights = distance**2 + 1e-12  # keeps the sum above zero
        centres = np.concatenate(
            [centres, sizes[[rng.choice(len(sizes), p=weights / weights.sum())]]]
        )
    owner = np.full(len(sizes), -1)
    for _ in range(300):
        iou = size_iou(sizes, centres)
        nearest = iou.argmax(1)
        if (nearest == owner).all():
            break
        owner = nearest
        members = np.bincount(owner, minlength=count)
        for axis in range(2):
            total = np.bincount(owner, sizes[:, axis], minlength=count)
            centres[:, axis] = np.where(members > 0, total / members.clip(min=1), centres[:, axis])
        for empty in (members == 0).nonzero()[0]:
            centres[empty] = sizes[iou.max(1).argmin()]  # where the fit is worst
    return centres


class _Search:
    """Fitness of anchors on boxes; one anchor is replaced at a time.

    Attributes:
        anchors: [k, 2]. fitness: mean best IoU + share matched, in [0, 2].
    """

    def __init__(self, sizes: np.ndarray, anchors: np.ndarray, ratio: float) -> None:
        self.sizes, self.ratio = sizes, ratio
        self.anchors = anchors.copy()
        self.iou = np.ascontiguousarray(size_iou(sizes, anchors).T)  # [k, n]
        self.fits = np.ascontiguousarray((size_ratio(sizes, anchors) < ratio).T)
        self.fitness = self._compute_fitness(self.iou, self.fits)

    def try_anchor(self, number: int, anchor: np.ndarray) -> bool:
        """Replaces anchor `number` by `anchor` [2] unless fitness decreases; returns whether it did."""
        others = np.arange(len(self.anchors)) != number
        iou = size_iou(self.sizes, anchor[None])[:, 0]
        fits = size_ratio(self.sizes, anchor[None])[:, 0] < self.ratio
        fitness = self._compute_fitness(
            np.concatenate([self.iou[others], iou[None]]),
            np.concatenate([self.fits[others], fits[None]]),
        )
        if fitness < self.fitness:
            return False
        self.anchors[number], self.fitness = anchor, fitness
        self.iou[number], self.fits[number] = iou, fits
        return True

    @staticmethod
    def _compute_fitness(iou: np.ndarray, fits: np.ndarray) -> float:
        return float(iou.max(0).mean() + fits.any(0).mean())


def _refine(
    sizes: np.ndarray, anchors: np.ndarray, ratio: float, rng: np.random.Generator
) -> np.ndarray:
    """Refines anchors [k, 2] by `GENERATIONS` mutations, each accepted unless fitness decreases."""
    search = _Search(sizes, anchors, ratio)
    step = 0.1  # standard deviation of the logarithm of width and height
    for generation in range(GENERATIONS):
        number = generation % len(anchors)
        child = search.anchors[number] * np.exp(rng.normal(0, step, 2))
        accepted = search.try_anchor(number, child)
        # The step stays the same on average when one mutation in five is accepted.
        step = min(max(step * (1.5 if accepted else 1.5**-0.25), 1e-3), 0.5)
    return search.anchors
