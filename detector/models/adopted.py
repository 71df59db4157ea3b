"""Classifiers of torchvision and timm, with an activation of the registry in place of their own.

They are not written again: the package's network is traced by torch.fx, and each use of an activation,
module or function, becomes a module of its own. Names of all other tensors are the package's.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from detector.errors import UserError
from detector.models.classifier import Classifier
from detector.nn import ActFactory, BatchNormAct2d, BatchNormSettings, Conv2d
from detector.registry import nearest

ACTIVATION_MODULES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.GELU)
ACTIVATION_FUNCTIONS = (
    *(functional.relu, functional.relu6, functional.silu, functional.hardswish, functional.gelu),
    *(torch.relu, torch.relu_),
)
ACTIVATION_METHODS = ("relu", "relu_")


@dataclass(frozen=True, slots=True)
class Adopted:
    """A network of another package.

    Attributes:
        package: torchvision or timm.
        name: of the network there.
        options: keywords of its constructor.
        smallest: width and height that its own stem needs, pixels.
        strided: the convolutions that get stride 1 for small images, and 3x3 if they are larger.
        pools: the pools that are left out for small images.
    """

    package: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()
    smallest: int = 32
    strided: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()

    def create(self, num_classes: int) -> nn.Module:
        """The package's network, freshly initialised.

        Raises:
            UserError: timm is not installed.
        """
        options = dict(self.options)
        if self.package == "torchvision":
            return getattr(torchvision.models, self.name)(num_classes=num_classes, **options)
        return create_timm_network(self.name, num_classes, **options)


def create_timm_network(name: str, num_classes: int, **options: Any) -> nn.Module:
    """A network of timm, freshly initialised.

    Raises:
        UserError: timm is not installed, or has no such network.
    """
    try:
        import timm
    except ImportError:
        raise UserError(
            f"the network {name} is timm's, which is not installed; install it with: "
            'pip install "detector[timm]", or: pip install timm'
        ) from None
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}{nearest(name, timm.list_models())}")
    return timm.create_model(name, num_classes=num_classes, **options)


class AdoptedClassifier(Classifier):
    """A classifier of another package.

    Attributes:
        network: its layers, as a `torch.fx.GraphModule`.
        smallest: width and height of images that it can process, pixels.
    """

    def __init__(
        self,
        source: Adopted,
        *,
        num_classes: int,
        small_images: bool = False,
        own_eps: bool = False,
        act: ActFactory,
        norm: BatchNormSettings,
    ) -> None:
        """Builds the package's network and changes it.

        Args:
            source: the network.
            num_classes: of the data set.
            small_images: reduce the resolution by 8 instead of 32, for images of 32 px.
            own_eps: each BatchNorm keeps its eps; `norm` then sets only the momentum.
            act: in place of each activation, except those of gates (sigmoid).
            norm: of every BatchNorm.
        """
        super().__init__()
        network = source.create(num_classes)
        if small_images:
            _keep_resolution(network, source)
        self.smallest = 32 if small_images else source.smallest
        _replace_norms(network, act, norm, own_eps=own_eps)
        self.network = replace_activations(network, act, size=max(self.smallest, 64))
        _use_own_convolutions(self.network)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, classes].

        Raises:
            UserError: the images are too small for the network.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.smallest:
            raise UserError(
                f"images of {height} x {width} px are too small for this network, which needs "
                f"{self.smallest}; set model.small_images=true, or a larger data.size"
            )
        return self.network(images)


class _NormAct(BatchNormAct2d):
    """Stands for timm's BatchNorm with an activation in it."""

    def __init__(self, act: ActFactory, channels: int, *, eps: float, momentum: float) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.act = act(channels)

    def forward(self, input: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(input, self.act)


def _keep_resolution(network: nn.Module, source: Adopted) -> None:
    """Gives the first strided convolutions stride 1 and removes the first pools."""
    for path in source.strided:
        conv = network.get_submodule(path)
        assert isinstance(conv, nn.Conv2d), f"{source.name}: {path} is no convolution"
        kernel = min(conv.kernel_size[0], 3)
        changed = nn.Conv2d(
            *(conv.in_channels, conv.out_channels, kernel, 1, kernel // 2),
            groups=conv.groups,
            bias=conv.bias is not None,
        )
        if kernel == conv.kernel_size[0]:
            changed.load_state_dict(conv.state_dict())  # the package's initialisation
        _set_submodule(network, path, changed)
    for path in source.pools:
        _set_submodule(network, path, nn.Identity())


def _replace_norms(
    network: nn.Module, act: ActFactory, norm: BatchNormSettings, *, own_eps: bool
) -> None:
    """Puts `BatchNormAct2d` in the place of every BatchNorm: the same values, synchronised over ranks."""
    for path, module in list(network.named_modules()):
        if not isinstance(module, nn.BatchNorm2d):
            continue
        eps = module.eps if own_eps else norm.eps
        inner = getattr(module, "act", None)
        if isinstance(inner, ACTIVATION_MODULES):
            new = _NormAct(act, module.num_features, eps=eps, momentum=norm.momentum)
        else:
            assert inner is None or isinstance(inner, nn.Identity), f"{path}: {inner}"
            new = BatchNormAct2d(module.num_features, eps=eps, momentum=norm.momentum)
        new.load_state_dict(module.state_dict(), strict=False, assign=True)
        _set_submodule(network, path, new)


def _use_own_convolutions(network: nn.Module) -> None:
    """Makes every convolution one whose weights get their gradients from `ops.conv2d`."""
    for module in network.modules():
        if type(module) is nn.Conv2d:  # not a subclass, which may pad in its own way
            module.__class__ = Conv2d  # pyright: ignore[reportAttributeAccessIssue]


def _set_submodule(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


class _Tracer(fx.Tracer):
    """Traces into everything but torch's layers and those whose `forward` depends on `training`."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaves = (_BatchNorm, torchvision.ops.StochasticDepth)
        return isinstance(m, leaves) or super().is_leaf_module(m, module_qualified_name)


def replace_activations(network: nn.Module, act: ActFactory, *, size: int) -> fx.GraphModule:
    """Puts `act(channels)` in the place of each use of an activation, modules and functions alike.

    A module that is used in several places becomes as many: an activation may learn values per channel.
    One that does not overwrite its input is replaced by one that does not.

    Args:
        network: whose layers are kept.
        act: makes the new ones.
        size: of images that the network can process; channels are counted with one, without memory.
    """
    traced = fx.GraphModule(network, _Tracer().trace(network))
    channels = _count_channels(traced, size)
    found = [(node, _find_activation(traced, node)) for node in traced.graph.nodes]
    uses = Counter[str]()
    for node, old in found:
        if old is None:
            continue
        new = act(channels[node.name])
        if hasattr(new, "inplace") and not _works_in_place(old, node):
            new.inplace = False  # pyright: ignore
        path = str(node.target) if node.op == "call_module" else f"activations.{node.name}"
        uses[path] += 1
        if uses[path] > 1:
            path = f"{path}_{uses[path]}"
        traced.add_submodule(path, new)
        node.op, node.target, node.args, node.kwargs = "call_module", path, node.args[:1], {}
    traced.graph.lint()
    traced.recompile()
    return traced


def _find_activation(traced: fx.GraphModule, node: fx.Node) -> nn.Module | Callable | str | None:
    """The activation that a node of the graph applies, module, function or method; or None."""
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        return module if isinstance(module, ACTIVATION_MODULES) else None
    if node.op == "call_function" and node.target in ACTIVATION_FUNCTIONS:
        return node.target
    if node.op == "call_method" and node.target in ACTIVATION_METHODS:
        return node.target
    return None


def _works_in_place(old: nn.Module | Callable | str, node: fx.Node) -> bool:
    if isinstance(old, nn.Module):
        return bool(getattr(old, "inplace", False))
    if old in (torch.relu_, "relu_"):
        return True
    return bool(node.kwargs.get("inplace", len(node.args) > 1 and node.args[1]))


class _ChannelCounter(fx.Interpreter):
    """Runs a graph and notes the channels of each value that has some."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.channels: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.ndim > 1:
            self.channels[n.name] = value.shape[1]
        return value


def _count_channels(traced: fx.GraphModule, size: int) -> dict[str, int]:
    """The channels of each node's output."""
    counter = _ChannelCounter(copy.deepcopy(traced).to("meta").eval())
    with torch.no_grad():
        counter.run(torch.zeros(1, 3, size, size, device="meta"))
    return counter.channels


# Networks of the Mish paper's tables; what `small_images` changes is the usual adaptation to CIFAR
ADOPTED = {
    "resnet18": Adopted("torchvision", "resnet18", strided=("conv1",), pools=("maxpool",)),
    "resnet50": Adopted("torchvision", "resnet50", strided=("conv1",), pools=("maxpool",)),
    "squeezenet1_1": Adopted(
        "torchvision", "squeezenet1_1", strided=("features.0",), pools=("features.2",)
    ),
    "densenet121": Adopted(
        "torchvision", "densenet121", strided=("features.conv0",), pools=("features.pool0",)
    ),
    "mobilenet_v2": Adopted(
        "torchvision", "mobilenet_v2", strided=("features.0.0", "features.2.conv.1.0")
    ),
    "shufflenet_v2_x1_0": Adopted(
        "torchvision", "shufflenet_v2_x1_0", strided=("conv1.0",), pools=("maxpool",)
    ),
    "inception_v3": Adopted(
        *("torchvision", "inception_v3"),
        options=(("aux_logits", False), ("init_weights", True)),
        smallest=75,
        strided=("Conv2d_1a_3x3.conv",),
        pools=("maxpool1", "maxpool2"),
    ),
    "efficientnet_b0": Adopted(
        "torchvision", "efficientnet_b0", strided=("features.0.0", "features.2.0.block.1.0")
    ),
    "xception": Adopted("timm", "legacy_xception", strided=("conv1",)),
    "inception_resnet_v2": Adopted(
        *("timm", "inception_resnet_v2"),
        smallest=75,
        strided=("conv2d_1a.conv",),
        pools=("maxpool_3a", "maxpool_5a"),
    ),
}
