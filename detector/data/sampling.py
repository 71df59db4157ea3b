"""The order of an epoch, and how often an image comes: once, or more often the rarer its classes are."""

import numpy as np

from detector.data.store.index import Index


def repeat_factors(index: Index, threshold: float) -> np.ndarray:
    """Images of rare classes more often. Source: Gupta et al., "LVIS", 2019, section 5.2.

    Args:
        index: the images and their boxes; crowds do not count.
        threshold: share of the images; a class that is on fewer is rare.

    Returns:
        float64 [n]: the largest max(1, sqrt(threshold / share of the images with the class)) of an
        image's classes; 1 without boxes.
    """
    image, label = _pairs(index)
    share = np.bincount(label, minlength=len(index.names)) / max(len(index), 1)
    with np.errstate(divide="ignore"):
        of_class = np.maximum(1.0, np.sqrt(threshold / share))
    factors = np.ones(len(index))
    np.maximum.at(factors, image, of_class[label])
    return factors


def class_balance(index: Index) -> np.ndarray:
    """Every class equally often. Source: Shen et al., "Relay Backpropagation", 2016, section 3.2.

    There a class is drawn, then one of its images. This is how often each image is expected to come,
    float64 [n], in as many draws as there are images with boxes; those without come once.
    """
    image, label = _pairs(index)
    counts = np.bincount(label, minlength=len(index.names))
    labelled, classes = len(np.unique(image)), max(np.count_nonzero(counts), 1)
    factors = np.ones(len(index))
    factors[image] = 0
    np.add.at(factors, image, labelled / classes / counts[label])
    return factors


def _pairs(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Which classes are on which images: image numbers and labels, each pair once."""
    owner = np.repeat(np.arange(len(index)), np.diff(index.starts))
    both = np.stack([owner, index.labels], 1)[~index.crowd]
    image, label = np.unique(both, axis=0).T
    return image, label


def epoch_length(repeats: np.ndarray) -> int:
    """Samples in each epoch with these factors [n]."""
    return int(repeats.sum() + 1e-6)  # a sum that is whole but for rounding counts as whole


def draw_order(rng: np.random.Generator, repeats: np.ndarray) -> np.ndarray:
    """The indices of one epoch, shuffled, int64 [epoch_length(repeats)].

    Image i comes floor or ceil of repeats[i] times (at most one of all once less, so that each epoch has
    the same length), on average repeats[i] times. Its k-th time is index i + k * n, which a `TrainSet`
    augments anew.
    """
    n = len(repeats)
    shuffled = rng.permutation(n)  # so that who gets the fractions does not hang on the file order
    passed = np.floor(np.cumsum(repeats[shuffled]) + rng.random()).astype(np.int64)
    counts = np.diff(passed, prepend=0)
    images = np.repeat(shuffled, counts)
    times = np.arange(len(images)) - np.repeat(passed - counts, counts)
    return rng.permutation(images + times * n)[: epoch_length(repeats)]


class EpochOrder:
    """In which order the samples of an epoch come; (seed, epoch) fixes it.

    Every image comes once an epoch, or as often as `repeats` asks for.

    Attributes:
        images: how many there are.
        seed: of the run.
        length: samples an epoch.
    """

    def __init__(self, images: int, seed: int, repeats: np.ndarray | None = None) -> None:
        """`repeats`: [images]; how often each image comes, see `draw_order`."""
        self.images, self.seed, self._repeats = images, seed, repeats
        self.length = images if repeats is None else epoch_length(repeats)
        self._epoch, self._order, self._positions = -1, np.zeros(0, np.int64), np.zeros(0, np.int64)

    def indices(self, epoch: int) -> np.ndarray:
        """The indices of an epoch, int64 [length]; index i is image i % images. Not to be changed."""
        if epoch != self._epoch:  # a reader asks for the same epoch again and again
            rng = np.random.default_rng([self.seed, epoch])
            if self._repeats is None:
                self._order = rng.permutation(self.images)
            else:
                self._order = draw_order(rng, self._repeats)
            self._epoch, self._positions = epoch, np.zeros(0, np.int64)
        return self._order

    def position(self, epoch: int, index: int) -> int | None:
        """Where an index stands in an epoch; None where the epoch has it not."""
        order = self.indices(epoch)
        if not len(self._positions):
            self._positions = np.full(order.max(initial=-1) + 1, -1)
            self._positions[order] = np.arange(len(order))
        found = int(self._positions[index]) if 0 <= index < len(self._positions) else -1
        return None if found < 0 else found
