"""Boxes with keypoints or polygons: what YOLO's lines mean, which no single line says."""

import numpy as np
import pytest

from detector.data import load_data_yaml, read_split
from detector.data.readers.yolo_lines import LineFormat, LineTally, parse_yolo
from detector.errors import UserError

SIZE = (100, 100)


def make_pose_lines(rng, count, keypoints, numbers, *, outside=0.0):
    """Lines of a box, and keypoints in it; a fraction `outside` of the lines has some beyond it."""
    lines = []
    for _ in range(count):
        w, h = rng.uniform(0.05, 0.6, 2)
        x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        reach = 2.5 if rng.random() < outside else 0.5
        points = rng.uniform(-reach, reach, (keypoints, 2)) * (w, h) + (x, y)
        if numbers == 3:  # a network's confidence
            points = np.concatenate([points, rng.uniform(0.3, 0.9, (keypoints, 1))], 1)
        values = np.clip([x, y, w, h, *points.ravel()], 0, 1)
        lines.append("0 " + " ".join(f"{value:.6f}" for value in values))
    return lines


def make_polygon_lines(rng, count, corners, largest):
    lines = []
    for _ in range(count):
        size = rng.uniform(largest / 4, largest, 2)
        centre = rng.uniform(size / 2, 1 - size / 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.choice(corners)))
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * size / 2 + centre
        lines.append("0 " + " ".join(f"{value:.6f}" for value in points.ravel()))
    return lines


def tally_of(lines):
    tally = LineTally()
    for line in lines:
        assert not parse_yolo(line.encode(), SIZE, 1, tally=tally).faults
    return tally


@pytest.mark.parametrize(
    ("keypoints", "numbers"), [(1, 2), (2, 2), (5, 2), (17, 2), (2, 3), (4, 3), (16, 3)]
)
@pytest.mark.parametrize("count", [1, 4, 200])
def test_boxes_with_keypoints_are_named(rng, keypoints, numbers, count):
    lines = make_pose_lines(rng, count, keypoints, numbers)
    with pytest.raises(UserError) as caught:
        tally_of(lines).check("train.txt")
    message = str(caught.value)
    assert f"`kpt_shape: [{keypoints}, {numbers}]` or `polygons: true`" in message
    assert message.startswith(
        f"train.txt: all lines of more than 5 numbers have {len(lines[0].split())}"
    )
    assert "\n" not in message


def test_keypoints_beyond_their_boxes_make_polygons_that_cross_themselves(rng):
    with pytest.raises(UserError, match=r"`kpt_shape: \[17, 2\]`"):
        tally_of(make_pose_lines(rng, 50, 17, 2, outside=0.6)).check("train.txt")


@pytest.mark.parametrize("corners", [[3], [4], [5], [9], [30], [4, 5], range(3, 40)])
@pytest.mark.parametrize("largest", [0.05, 0.2, 0.9])
def test_polygons_are_read(rng, corners, largest):
    tally_of(make_polygon_lines(rng, 60, corners, largest)).check("train.txt")


def test_rectangles_as_polygons_are_read(rng):
    lines = []
    for _ in range(60):
        (x1, x2), (y1, y2) = np.sort(rng.uniform(0, 1, (2, 2)))
        lines.append(f"0 {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}")
    tally_of(lines).check("train.txt")


def read(yaml):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, "train")


def test_the_yaml_says_which_it_is(written, rng):
    yaml = written("yolo")
    text = yaml.read_text()
    label = yaml.parent / "labels" / "train" / "a.txt"
    lines = make_pose_lines(rng, 8, 3, 2)
    label.write_text("\n".join(lines))
    with pytest.raises(
        UserError, match=r"images/train: all lines .* a box and 3 keypoints \(x y\)"
    ):
        read(yaml)
    yaml.write_text(f"{text}kpt_shape: [3, 2]\n")
    index = read(yaml)
    boxes = np.array([line.split()[1:5] for line in lines], float) * [100, 60, 100, 60]
    assert index.boxes_xyxy[:8, 2:] - index.boxes_xyxy[:8, :2] == pytest.approx(
        boxes[:, 2:], abs=0.01
    )
    yaml.write_text(f"{text}polygons: true\n")
    assert len(read(yaml).boxes_xyxy) == 9
    assert not np.allclose(read(yaml).boxes_xyxy, index.boxes_xyxy)
    yaml.write_text(f"{text}kpt_shape: [2, 3]\n")  # 10 numbers after the class, too
    label.write_text(f"{lines[0]} 1 1\n0 .5 .5 .2 .2\n")
    (finding,) = read(yaml).findings
    assert finding.what.startswith(
        "13 numbers; expected 5 (box) or 11 (box and keypoints, by `kpt_shape: [2, 3]`): '0 0."
    )


def test_polygons_without_a_doubt():
    form = LineFormat(polygons=True)
    for line in (
        "0 0 0 1 0 1 1 0 1 0 1",
        "0 .5 .5 .2 .2 .9 1",
        "0 0 .1 .5 .2 .3 1 .4 .2 0 .7 .7 1",
    ):
        parsed = parse_yolo(line.encode(), SIZE, 1, form)
        assert not parsed.faults
        assert len(parsed.boxes) == 1
    assert parse_yolo(b"0 .5 .5 .2 .2 .9 7", SIZE, 1, form).faults  # no share


@pytest.mark.parametrize("shape", ["[17]", "[17, 4]", "[0, 2]", "17", "[17, 3, 1]", "[a, 2]"])
def test_a_wrong_kpt_shape_is_one_line(written, shape):
    yaml = written("yolo")
    yaml.write_text(f"{yaml.read_text()}kpt_shape: {shape}\n")
    with pytest.raises(UserError, match=r"data\.yaml:\d+: kpt_shape"):
        read(yaml)
