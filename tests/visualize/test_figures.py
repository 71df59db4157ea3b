"""Class names of any script in the figures that are drawn: no warning, no formula, no lost room."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from detector.data.checks import plot_labels
from detector.html_report.charts import draw_confusion_matrix
from detector.visualize.figures import LONGEST, escape_name, fonts_for_names
from tests.data.test_index import index_of

NAMES = (
    "\u72ac",
    "\U0001f680",
    "\u0915\u0941\u0924\u094d\u0924\u093e",
    "$x_{",
    "a$b$c",
    "_",
    "x" * 300,
)
NAMES += ("tab\there", "two\nlines", "\\frac$1$", "\u05d0\u05d1", "^", "{", "%s %(x)s")


@pytest.mark.parametrize("draw", ["labels", "confusion"])
def test_any_name_is_drawn_without_a_warning(real_figures, tmp_path, recwarn, draw):
    if draw == "labels":
        owner = np.zeros(len(NAMES), np.int64)
        boxes = np.tile([1.0, 1, 20, 20], (len(NAMES), 1)) + np.arange(len(NAMES))[:, None]
        index = replace(index_of(boxes, np.arange(len(NAMES)) % 4, owner), names=NAMES)
        plot_labels(tmp_path / "x.png", index, size=64, anchors=None)
    else:
        matrix = np.arange((len(NAMES) + 1) ** 2).reshape(len(NAMES) + 1, -1)
        draw_confusion_matrix(matrix, NAMES).save_png(tmp_path)
    assert list(tmp_path.iterdir())
    assert [str(each.message) for each in recwarn] == []


def test_names_of_a_figure():
    assert escape_name("a$b$") == r"a\$b\$"
    assert escape_name("two\nlines") == "two lines"
    assert len(escape_name("x" * 300)) == LONGEST
    assert escape_name("x" * LONGEST) == "x" * LONGEST


def test_other_warnings_are_shown():
    with fonts_for_names(), pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", UserWarning, stacklevel=1)
