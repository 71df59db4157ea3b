"""Drawings of a few shapes, described once and written as SVG (on the page) and as PNG (beside it)."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detector.errors import writing
from detector.visualize.figures import fonts_for_names

# role -> color in the light and the dark scheme; CSS variables of these names on the page
PALETTE = {
    "ink": ("#1c2733", "#e3e9ee"),
    "soft": ("#5b6773", "#9aa7b3"),
    "line": ("#dde3e8", "#34404b"),
    "back": ("#ffffff", "#12181d"),
    "card": ("#f6f8fa", "#1b232a"),
    "accent": ("#2f6f8f", "#74b7d8"),
    "warm": ("#b85c12", "#e69a56"),
    "green": ("#3f7f35", "#86c47a"),
    "violet": ("#77509e", "#b79ae0"),
    "rose": ("#ad3560", "#e58aa8"),
    "olive": ("#857a1c", "#cfc16a"),
}
Role = Literal["ink", "soft", "line", "accent", "warm", "green", "violet", "rose", "olive"]
FONT_SIZE = 13  # units of a drawing


@dataclass(frozen=True, slots=True)
class Text:
    """Words anchored by their start, middle or end at a point of their baseline."""

    x: float
    y: float
    words: str
    anchor: Literal["start", "middle", "end"] = "start"
    role: Role = "soft"
    rotated: bool = False  # reads upwards
    size: float = FONT_SIZE

    def svg(self) -> str:
        """An SVG element."""
        turn = f' transform="rotate(-90 {self.x:g} {self.y:g})"' if self.rotated else ""
        size = "" if self.size == FONT_SIZE else f' style="font-size:{self.size:g}px"'
        return (
            f'<text x="{self.x:g}" y="{self.y:g}" text-anchor="{self.anchor}" '
            f'fill="var(--{self.role})"{turn}{size}>{html.escape(self.words)}</text>'
        )

    def draw(self, axes, order: int) -> None:
        """Draws on matplotlib's axes, above shapes of a lower order."""
        align = {"start": "left", "middle": "center", "end": "right"}[self.anchor]
        axes.text(
            self.x,
            self.y,
            self.words.replace("$", r"\$"),
            ha=align,
            va="baseline",
            rotation=90 if self.rotated else 0,
            rotation_mode="anchor",
            color=PALETTE[self.role][0],
            fontsize=self.size,
            zorder=order,
        )


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline through points."""

    points: Sequence[tuple[float, float]]
    role: Role
    width: float = 1
    opacity: float = 1
    dashed: bool = False

    def svg(self) -> str:
        """An SVG element."""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        dashes = ' stroke-dasharray="4 4"' if self.dashed else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="var(--{self.role})" '
            f'stroke-width="{self.width:g}" stroke-opacity="{self.opacity:.2f}"{dashes}/>'
        )

    def draw(self, axes, order: int) -> None:
        """Draws on matplotlib's axes, above shapes of a lower order."""
        axes.plot(
            *zip(*self.points, strict=True),
            color=PALETTE[self.role][0],
            linewidth=self.width,
            alpha=self.opacity,
            linestyle=(0, (4, 4)) if self.dashed else "-",
            zorder=order,
        )


@dataclass(frozen=True, slots=True)
class Area:
    """A filled polygon without an outline."""

    points: Sequence[tuple[float, float]]
    role: Role
    opacity: float = 0.15

    def svg(self) -> str:
        """An SVG element."""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        return (
            f'<polygon points="{points}" fill="var(--{self.role})" '
            f'fill-opacity="{self.opacity:.2f}"/>'
        )

    def draw(self, axes, order: int) -> None:
        """Draws on matplotlib's axes, above shapes of a lower order."""
        from matplotlib.patches import Polygon

        style = {"color": PALETTE[self.role][0], "alpha": self.opacity, "lw": 0, "zorder": order}
        axes.add_patch(Polygon(list(self.points), **style))


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle; `title` is its tooltip."""

    x: float
    y: float
    width: float
    height: float
    role: Role
    opacity: float = 1
    title: str = ""

    def svg(self) -> str:
        """An SVG element."""
        return (
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{self.width:.1f}" height="{self.height:g}" '
            f'fill="var(--{self.role})" fill-opacity="{self.opacity:.2f}">{_title(self.title)}</rect>'
        )

    def draw(self, axes, order: int) -> None:
        """Draws on matplotlib's axes, above shapes of a lower order."""
        from matplotlib.patches import Rectangle

        style = {"color": PALETTE[self.role][0], "alpha": self.opacity, "lw": 0, "zorder": order}
        axes.add_patch(Rectangle((self.x, self.y), self.width, self.height, **style))


@dataclass(frozen=True, slots=True)
class Dot:
    """A disc; `title` is its tooltip."""

    x: float
    y: float
    radius: float
    role: Role
    title: str = ""

    def svg(self) -> str:
        """An SVG element."""
        return (
            f'<circle cx="{self.x:.1f}" cy="{self.y:.1f}" r="{self.radius:.1f}" '
            f'fill="var(--{self.role})" fill-opacity="0.8">{_title(self.title)}</circle>'
        )

    def draw(self, axes, order: int) -> None:
        """Draws on matplotlib's axes, above shapes of a lower order."""
        from matplotlib.patches import Circle

        style = {"color": PALETTE[self.role][0], "alpha": 0.8, "lw": 0, "zorder": order}
        axes.add_patch(Circle((self.x, self.y), self.radius, **style))


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a sheet; y points down, units are CSS pixels.

    Attributes:
        name: of the PNG file.
        label: a description for screen readers.
        fixed: whether it keeps its size on the page and scrolls where the page is narrower.
    """

    name: str
    label: str
    width: float
    height: float
    shapes: Sequence[Text | Line | Area | Box | Dot]
    fixed: bool = False

    def svg(self) -> str:
        """An element of the page."""
        inside = "".join(shape.svg() for shape in self.shapes)
        size = f' style="width:{self.width:g}px"' if self.fixed else ""
        drawing = (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{html.escape(self.label)}"{size}>{inside}</svg>'
        )
        return f'<div class="wide">{drawing}</div>' if self.fixed else drawing

    @fonts_for_names()
    def save_png(self, folder: Path) -> None:
        """Writes it as PNG, two pixels per unit, on white.

        Raises:
            UserError: the file cannot be written.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width / 72, self.height / 72))  # one unit is one point
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        for order, shape in enumerate(self.shapes):
            shape.draw(axes, order)
        path = folder / f"{self.name}.png"
        with writing(path):
            figure.savefig(path, dpi=144)


def _title(words: str) -> str:
    return f"<title>{html.escape(words)}</title>" if words else ""
