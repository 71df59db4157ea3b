"""Random numbers of a sample: a stream of its own for each augmentation, fixed by seed, epoch and index.

So one augmentation switched on or off leaves the draws of all others as they were: two runs that
differ in one switch see the same images otherwise.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one sample, or of one batch, by name.

    Attributes:
        seed: of the run.
        epoch: counted from 0.
        index: of the sample or the batch in the epoch.
    """

    seed: int
    epoch: int
    index: int

    def generator(self, name: str = "") -> np.random.Generator:
        """A fresh generator; the same one for the same name, independent of those of other names."""
        # what default_rng makes, in three quarters of the time
        entropy = [self.seed, self.epoch, self.index, *name.encode()]
        return np.random.Generator(np.random.PCG64(entropy))

    def chance(self, name: str, probability: float) -> np.random.Generator | None:
        """The stream of that name with this probability, else None."""
        if probability == 0:  # saves the time of making a generator
            return None
        rng = self.generator(name)
        return rng if rng.random() < probability else None
