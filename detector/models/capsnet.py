"""Capsule Net: vectors in place of numbers, joined by agreement.

Source: Sabour, Frosst and Hinton, "Dynamic Routing Between Capsules", 2017.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.models.classifier import Classifier
from detector.nn import ActFactory, BatchNormSettings

SIZE = 32  # width and height of its images, pixels: it has weights for each position
EPS = 1e-9  # keeps the gradient of a length finite at 0


def squash(vectors: Tensor) -> Tensor:
    """[..., d] -> the same directions, of length |s|^2 / (1 + |s|^2), below 1 (equation 1)."""
    square = vectors.square().sum(-1, keepdim=True)
    return vectors * ((square + EPS).sqrt() / (1 + square))


def route(votes: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Routing by agreement (procedure 1): a class listens to the votes that agree with its capsule.

    Args:
        votes: float32 [B, classes, capsules, d], what each capsule says of the capsule of each class.
        rounds: at least 1; in the first, all classes have equal shares of a capsule.

    Returns:
        The sums of the votes [B, classes, d], not squashed, and the coupling coefficients that weight
        them [B, classes, capsules], which sum to 1 over the classes.
    """
    agreement = torch.zeros_like(votes[..., 0])
    total, coupling = _weigh(votes, agreement)
    for _ in range(rounds - 1):
        agreement = agreement + torch.matmul(votes, squash(total)[..., None])[..., 0]
        total, coupling = _weigh(votes, agreement)
    return total, coupling


def _weigh(votes: Tensor, agreement: Tensor) -> tuple[Tensor, Tensor]:
    coupling = agreement.softmax(1)
    return torch.matmul(coupling[:, :, None], votes)[:, :, 0].float(), coupling


class ClassCapsules(nn.Module):
    """A capsule for each class: every capsule votes by a matrix of its own, the votes are routed.

    Attributes:
        weight: [capsules, 8, classes, 16].
    """

    def __init__(self, capsules: int, num_classes: int, rounds: int) -> None:
        """`rounds`: of routing."""
        super().__init__()
        self.rounds = rounds
        weight = torch.empty(capsules, 8, num_classes, 16)
        self.weight = nn.Parameter(nn.init.normal_(weight, std=0.1))

    def forward(self, capsules: Tensor) -> Tensor:
        """Squashed capsules [B, capsules, 8] -> those of the classes [B, classes, 16], not squashed."""
        total, _ = route(self.vote(capsules), self.rounds)
        return total

    def vote(self, capsules: Tensor) -> Tensor:
        """[B, capsules, 8] -> float32 votes [B, classes, capsules, 16]."""
        return torch.einsum("bid,idco->bcio", capsules, self.weight).float().contiguous()


class CapsNet(Classifier):
    """9x9 convolution, activation, 9x9/2 convolution to capsules, a capsule for each class.

    The length of a class's capsule, in [0, 1), says whether the class is there. Its logit,
    log(length / (1 - length)), is log |s|^2 of the capsule s before it is squashed: sigmoid gives
    lengths, which the margin loss compares, and softmax shares of |s|^2. As published, it has no
    BatchNorm; here it has no decoder that reconstructs the image either, and takes 32 x 32 px of three
    channels (published: 28 x 28 of one, 24 x 24 of three).
    """

    loss = "margin"

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int = 256,
        kinds: int = 32,
        rounds: int = 3,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """The published sizes by default.

        Args:
            num_classes: of the data set.
            channels: of the first convolution.
            kinds: capsules of 8 numbers at each position.
            rounds: of routing.
            act: after the first convolution.
            norm: not used, there is none.
        """
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 9)
        self.act = act(channels)
        self.primary = nn.Conv2d(channels, 8 * kinds, 9, 2)
        side = (SIZE - 8 - 9) // 2 + 1
        self.classes = ClassCapsules(kinds * side**2, num_classes, rounds)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, 32, 32] in [0, 1], other sizes are averaged to it -> logits [B, classes]."""
        total = self.classes(self.find_capsules(images))
        return (total.square().sum(-1) + EPS).log()

    def find_capsules(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> squashed capsules of each kind and position, float32 [B, capsules, 8]."""
        if images.shape[-2:] != (SIZE, SIZE):
            images = functional.adaptive_avg_pool2d(images, SIZE)
        maps = self.primary(self.act(self.stem(images))).float()
        return squash(maps.unflatten(1, (-1, 8)).movedim(2, -1).flatten(1, 3))
