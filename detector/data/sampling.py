"""The order of an epoch, and how often each image occurs in it: more often if it has rare classes."""

import numpy as np

from detector.data.store.index import Index


def repeat_factors(index: Index, threshold: float) -> np.ndarray:
    """Repeats images of rare classes. Source: Gupta et al., "LVIS", 2019, section 5.2.

    Args:
        index: the images and their boxes; crowds do not count.
        threshold: a class is rare if a smaller fraction of the images has it.

    Returns:
        float64 [n]: over an image's classes, the maximum of sqrt(threshold / fraction of the images
        with the class), but at least 1; 1 without boxes.
    """
    image, label = _find_classes_by_image(index)
    share = np.bincount(label, minlength=len(index.names)) / max(len(index), 1)
    with np.errstate(divide="ignore"):
        of_class = np.maximum(1.0, np.sqrt(threshold / share))
    factors = np.ones(len(index))
    np.maximum.at(factors, image, of_class[label])
    return factors


def class_balance(index: Index) -> np.ndarray:
    """Samples all classes equally often. Source: Shen et al., "Relay Backpropagation", 2016, section 3.2.

    The paper draws a class, then one of its images. Returns how often that draws each image on average,
    float64 [n], in as many draws as there are images with boxes; images without boxes occur once.
    """
    image, label = _find_classes_by_image(index)
    counts = np.bincount(label, minlength=len(index.names))
    labelled, classes = len(np.unique(image)), max(np.count_nonzero(counts), 1)
    factors = np.ones(len(index))
    factors[image] = 0
    np.add.at(factors, image, labelled / classes / counts[label])
    return factors


def _find_classes_by_image(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Image numbers and labels, int64 [p] each: each pair of an image and one of its classes once."""
    both = np.stack([index.box_image_numbers(), index.labels], 1)[~index.crowd]
    image, label = np.unique(both, axis=0).T
    return image, label


def epoch_length(repeats: np.ndarray) -> int:
    """Samples per epoch with these repeat factors [n]."""
    return int(repeats.sum() + 1e-6)  # guards against a sum just below a whole number


def draw_order(rng: np.random.Generator, repeats: np.ndarray) -> np.ndarray:
    """Draws the shuffled indices of one epoch, int64 [epoch_length(repeats)].

    Image i occurs floor(repeats[i]) or ceil(repeats[i]) times, on average repeats[i] times; one image may
    occur once less, so that all epochs have the same length. Its k-th occurrence, k = 0, 1 ..., has index
    i + k * n, for which a `TrainSet` draws other random numbers.
    """
    n = len(repeats)
    shuffled = rng.permutation(n)  # so that the rounding does not depend on the file order
    passed = np.floor(np.cumsum(repeats[shuffled]) + rng.random()).astype(np.int64)
    counts = np.diff(passed, prepend=0)
    images = np.repeat(shuffled, counts)
    times = np.arange(len(images)) - np.repeat(passed - counts, counts)
    return rng.permutation(images + times * n)[: epoch_length(repeats)]


class EpochOrder:
    """The order of the samples of each epoch, fixed by (seed, epoch).

    Every image occurs once per epoch, or as often as `repeats` says.

    Attributes:
        images: the number of images.
        seed: of the run.
        length: samples per epoch.
    """

    def __init__(self, images: int, seed: int, repeats: np.ndarray | None = None) -> None:
        """`repeats`: [images], how often each image occurs; see `draw_order`."""
        self.images, self.seed, self._repeats = images, seed, repeats
        self.length = images if repeats is None else epoch_length(repeats)
        self._epoch, self._order, self._positions = -1, np.zeros(0, np.int64), np.zeros(0, np.int64)

    def indices(self, epoch: int) -> np.ndarray:
        """The indices of an epoch, int64 [length], not to be changed; index i is image i % images."""
        if epoch != self._epoch:  # cached: a worker needs the same epoch for every sample
            rng = np.random.default_rng([self.seed, epoch])
            if self._repeats is None:
                self._order = rng.permutation(self.images)
            else:
                self._order = draw_order(rng, self._repeats)
            self._epoch, self._positions = epoch, np.zeros(0, np.int64)
        return self._order

    def position(self, epoch: int, index: int) -> int | None:
        """The position of an index in an epoch's order; None if the epoch does not have it."""
        order = self.indices(epoch)
        if not len(self._positions):
            self._positions = np.full(order.max(initial=-1) + 1, -1)
            self._positions[order] = np.arange(len(order))
        position = int(self._positions[index]) if 0 <= index < len(self._positions) else -1
        return None if position < 0 else position
