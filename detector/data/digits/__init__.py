"""The embedded data set: `digits` makes it, `render` draws its stickers, `credits` names the authors."""

from detector.data.digits.generate import ensure_digits, make_digits

__all__ = ["ensure_digits", "make_digits"]
