"""A drawing is described once: the page and the PNG show the same."""

import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from detector.errors import UserError
from detector.html_report.shapes import PALETTE, Box, Dot, Drawing, Line, Text

SHAPES = [
    Line([(0, 40), (55, 40)], "ink", 4),  # under the box
    Box(10, 20, 40, 30, "accent", title="a < b"),
    Line([(60, 10), (60, 90)], "warm", 4),
    Dot(100, 50, 15, "green"),
    Text(130, 50, "$a & <b>", "start", "ink"),
    Text(190, 90, "up", rotated=True),
]
DRAWING = Drawing("some", "what it shows", 200, 100, SHAPES)


def test_svg_is_well_formed_and_scales():
    for drawing, fixed in ((DRAWING, False), (Drawing("b", "", 30, 9, SHAPES, fixed=True), True)):
        root = ElementTree.fromstring(drawing.svg())
        svg = root if root.tag == "svg" else root[0]
        assert (root.tag == "div") == fixed
        assert len(svg) == len(SHAPES)
        assert svg[1][0].text == "a < b"
        assert svg[4].text == "$a & <b>"
        roles = {value for e in svg for value in e.attrib.values() if value.startswith("var(")}
        assert roles <= {f"var(--{role})" for role in PALETTE}


def test_png_has_each_shape_in_its_place(real_figures, tmp_path):
    DRAWING.save_png(tmp_path)
    image = cv2.imread(str(tmp_path / "some.png"))[..., ::-1]
    assert image.shape == (200, 400, 3)  # two pixels a unit

    def color(role):
        return [int(PALETTE[role][0][i : i + 2], 16) for i in (1, 3, 5)]

    assert image[70, 60].tolist() == image[80, 60].tolist() == color("accent")
    assert image[80, 10].tolist() == color("ink")
    assert image[100, 120].tolist() == color("warm")
    assert np.abs(image[100, 200] - (0.2 * 255 + 0.8 * np.array(color("green")))).max() < 2
    assert image[5, 5].tolist() == [255, 255, 255]
    assert (image[70:110, 260:380] < 100).any()  # words


def test_a_path_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(UserError, match=r"some\.png: cannot be written"):
        DRAWING.save_png(tmp_path / "nowhere")
