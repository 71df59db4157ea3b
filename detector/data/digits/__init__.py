"""The embedded data set: handwritten digits on photographs.

Read `generate` first (writes the data set), then `render` (draws a digit as a sticker); `credits` names
the authors of the photographs.
"""

from detector.data.digits.generate import ensure_digits, make_digits

__all__ = ["ensure_digits", "make_digits"]
