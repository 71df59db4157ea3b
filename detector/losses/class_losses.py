"""Losses of the class logits of matched cells; `CLASS_LOSSES` by name.

All take logits [m, classes], targets [m, classes] (1 for the class of the box and 0 elsewhere, smoothed
or not), positive (bool, which is the class of the box) and quality float32 [m], the IoU of the predicted
box with its ground truth; they return [m, classes].
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from detector.registry import Registry

ClassLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
CLASS_LOSSES: Registry[ClassLoss] = Registry("class loss")


@CLASS_LOSSES.register("bce")
def class_bce(logits: Tensor, targets: Tensor, positive: Tensor, quality: Tensor) -> Tensor:
    """Binary cross-entropy of each class."""
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


@CLASS_LOSSES.register("focal")
def class_focal(logits: Tensor, targets: Tensor, positive: Tensor, quality: Tensor) -> Tensor:
    """Cross-entropy that well-classified pairs hardly add to: alpha 0.25, gamma 2.

    Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 5.
    """
    return sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0)


@CLASS_LOSSES.register("varifocal")
def class_varifocal(logits: Tensor, targets: Tensor, positive: Tensor, quality: Tensor) -> Tensor:
    """The IoU as the target of the box's class, weighted by it; other classes weigh 0.75 p^2.

    Zhang et al., "VarifocalNet", 2021, equation 2. Label smoothing has no part in it.
    """
    wanted = positive * quality[:, None]
    weight = wanted + 0.75 * logits.detach().sigmoid().square() * ~positive
    return weight * binary_cross_entropy_with_logits(logits, wanted, reduction="none")
