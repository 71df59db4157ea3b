"""Class names in matplotlib's figures: drawn as they are, whatever their script, without warnings."""

import contextlib
import warnings
from collections.abc import Iterator

LONGEST = 40  # characters of a name in a figure; a longer one would leave no room for the axes
# tried for what matplotlib's own font lacks, in this order; what is not installed is left out
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC"),
    *("Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("SimHei", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Tamil"),
    *("Noto Sans Bengali", "Nirmala UI", "Noto Emoji", "Segoe UI Symbol", "Segoe UI Emoji"),
)


@contextlib.contextmanager
def fonts_for_names() -> Iterator[None]:
    """A context in which figures are made and saved: with the installed fonts for other scripts.

    A character that no font has is drawn as a box; matplotlib's warning for each of them is not shown.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
    with warnings.catch_warnings(), matplotlib.rc_context({"font.family": fonts}):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def escape_name(name: str) -> str:
    """A name as text of a figure, shortened: a dollar sign starts no formula, a new line is a space."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name)
    shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."
    return shown.replace("$", r"\$")
