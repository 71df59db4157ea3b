"""Random numbers of a sample: one stream per augmentation, fixed by seed, epoch and index.

Switching one augmentation on or off does not change what the others draw, so that two runs with one
different setting differ in nothing else.
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
        """A new generator; the same name always gives the same numbers, other names independent ones."""
        # equals default_rng(entropy), in three quarters of the time
        entropy = [self.seed, self.epoch, self.index, *name.encode()]
        return np.random.Generator(np.random.PCG64(entropy))

    def chance(self, name: str, probability: float) -> np.random.Generator | None:
        """The stream `name` with this probability, else None; the draw is the first of the stream."""
        if probability == 0:  # saves making a generator
            return None
        rng = self.generator(name)
        return rng if rng.random() < probability else None
