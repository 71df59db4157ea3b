"""Figures of landscapes: contours, surfaces, slices."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from detector.visualize.figures import escape_name, fonts_for_names

LEVELS = 20  # contour lines
COLOURS = "viridis"


def draw_surfaces(
    path: Path, x: np.ndarray, y: np.ndarray, values: Mapping[str, np.ndarray], *, label: str
) -> None:
    """Draws, for each name, a contour plot above a surface; all have the same scale.

    Positive values, as losses are, have contour lines and colours at equal ratios, else at equal steps.

    Args:
        path: of the PNG.
        x, y: float [n], float [m], of the axes.
        values: by name, float [n, m]; non-finite values are not drawn.
        label: of the values.
    """
    finite = np.concatenate([each[np.isfinite(each)] for each in values.values()])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    high = high if high > low else low + 1.0
    with fonts_for_names():
        from matplotlib.colors import LogNorm, Normalize
        from matplotlib.figure import Figure

        spaced, norm = (np.geomspace, LogNorm) if low > 0 else (np.linspace, Normalize)
        style = {"cmap": COLOURS, "norm": norm(low, high)}
        levels = spaced(low, high, LEVELS)
        figure = Figure(figsize=(4.5 * len(values), 8), layout="constrained")
        for column, (name, each) in enumerate(values.items()):
            shown = np.ma.masked_invalid(each.T)  # rows are y
            flat = figure.add_subplot(2, len(values), column + 1)
            filled = flat.contourf(x, y, shown, levels=levels, extend="both", **style)
            flat.contour(x, y, shown, levels=levels, colors="black", linewidths=0.3)
            flat.plot(0, 0, "r+")
            flat.set_title(escape_name(name))
            flat.set_aspect("equal")
            figure.colorbar(filled, ax=flat, shrink=0.7, label=label, format="%.3g")
            space = figure.add_subplot(2, len(values), len(values) + column + 1, projection="3d")
            space.plot_surface(*np.meshgrid(x, y), each.T, **style)  # pyright: ignore
            space.set_zlim(low, high)  # pyright: ignore
            space.set_zlabel(label)  # pyright: ignore
        figure.savefig(path, dpi=120)


def draw_slices(path: Path, steps: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
    """Draws losses along one direction, a line for each name.

    Args:
        path: of the PNG.
        steps: float [n].
        values: by name, float [n].
    """
    with fonts_for_names():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        for name, each in values.items():
            axes.plot(steps, each, label=escape_name(name), linewidth=1.6)
        axes.set_xlabel("step along the direction")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=120)
