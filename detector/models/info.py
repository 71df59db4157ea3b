"""Parameters, FLOPs and output shapes of a network, stage by stage, computed on the meta device."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class StageCost:
    """The cost of one stage of a network.

    Attributes:
        name: the module's name.
        parameters: number of its learnable parameters.
        flops: of its convolutions and linear layers, 2 x multiply-adds, for one image.
        shapes: (channels, height, width) of each output map.
    """

    name: str
    parameters: int = 0
    flops: int = 0
    shapes: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])


def list_stages(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that get a row of the table: the parts of backbone, neck and head, or all layers."""
    stages: dict[str, nn.Module] = {}
    for name, part in model.named_children():
        inner = dict(part.named_children())
        if isinstance(part, nn.Conv2d) or not inner:
            stages[name] = part
            continue
        for child, module in inner.items():
            if isinstance(module, nn.ModuleList):
                stages |= {f"{name}.{child}.{i}": level for i, level in enumerate(module)}
            elif any(True for _ in module.parameters()) or isinstance(part, nn.ModuleList):
                stages[f"{name}.{child}"] = module
    return stages


def measure_stages(model: nn.Module, height: int, width: int) -> list[StageCost]:
    """Measures every stage of a model for an image of this size.

    Args:
        model: on the meta device, which computes shapes only.
        height, width: pixels, multiples of the largest stride.
    """
    stages = {name: StageCost(name) for name in list_stages(model)}
    hooks = []
    for name, module in list_stages(model).items():
        stages[name].parameters = sum(p.numel() for p in module.parameters())
        hooks.append(module.register_forward_hook(_shape_hook(stages[name])))
        for inner in module.modules():
            if isinstance(inner, nn.Conv2d | nn.Linear):
                hooks.append(inner.register_forward_hook(_flops_hook(stages[name])))
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, height, width, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return list(stages.values())


def _shape_hook(stage: StageCost):
    def record_shape(
        _module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]
    ) -> None:
        maps = (output,) if isinstance(output, Tensor) else output
        stage.shapes = [(m.shape[1], m.shape[2], m.shape[3]) for m in maps if m.ndim == 4]

    return record_shape


def _flops_hook(stage: StageCost):
    def add_flops(layer: nn.Conv2d | nn.Linear, _inputs: object, output: Tensor) -> None:
        stage.flops += 2 * layer.weight[0].numel() * output[0].numel()

    return add_flops


def stages_as_json(stages: list[StageCost]) -> list[dict[str, Any]]:
    """The same as plain values, an entry per stage: name, parameters, flops, shapes [C, H, W]."""
    return [asdict(stage) for stage in stages]


def format_stages(stages: list[StageCost], height: int) -> str:
    """A table with a line per stage: parameters, GFLOPs, shape and stride; totals in the last line."""
    lines = [f"{'stage':<22} {'parameters':>12} {'GFLOPs':>8}  {'output':<18} stride"]
    for stage in stages:
        shapes = ", ".join(f"{c} x {h} x {w}" for c, h, w in stage.shapes)
        strides = ", ".join(f"{height / h:g}" for _, h, _ in stage.shapes)
        lines.append(
            f"{stage.name:<22} {stage.parameters:>12,} {stage.flops / 1e9:>8.3f}  {shapes:<18} {strides}"
        )
    total = sum(stage.parameters for stage in stages)
    flops = sum(stage.flops for stage in stages)
    lines.append(f"{'all':<22} {total:>12,} {flops / 1e9:>8.3f}")
    return "\n".join(lines)
