"""The lines of YOLO's txt files: a class and a box, a box with keypoints, or a polygon.

No line says which it is. `class x y w h` is a box; more numbers are a polygon, `class x1 y1 x2 y2 ...`,
or a box and its keypoints, `class x y w h x1 y1 ...`, maybe each with its visibility. What one line can
tell, `parse_yolo` names; what only all of them can, `LineTally`.
"""

from dataclasses import dataclass, field

from detector.data.readers.image_label_pairs import LabelFile
from detector.errors import UserError

POLYGON_RANGE = -0.1, 1.1  # of the shares; tools round, and clip late
MAX_NORMALISED = 2.0  # such values are pixels, not fractions of the image size
# keypoints lie in their box: by this share of its size beyond it, they still do
KEYPOINT_MARGIN = 0.1
# spread of n keypoints as a share of their box: this times n - 1, and at most; small polygons that are
# far from the corner of the image have less
MIN_SPREAD, LARGEST_MIN_SPREAD = 0.03, 0.2
TALLIED = 1000  # lines, enough to decide
# fraction of lines that fit a box and keypoints; of random polygons, a tenth does
SUSPICIOUS = 0.75
CROSSING = 0.5  # fraction of polygons that cross themselves; of a real data set, few do

Box = tuple[float, float, float, float]


@dataclass(slots=True)
class LineTally:
    """What the lines of more than five numbers of a whole data set could be.

    Polygons have as many corners as they need; boxes with keypoints all have the same number of values.

    Attributes:
        count: numbers after the class, the same in all lines so far; 0 before the first line.
        lines: how many such lines there are.
        varies: whether their numbers differ: they are polygons.
        first: the first of these lines.
        fits: lines that fit a box and keypoints, by the numbers of a keypoint: 2, or 3 with visibility.
        crossing: lines that, as polygons, cross themselves.
    """

    count: int = 0
    lines: int = 0
    varies: bool = False
    first: str = ""
    fits: dict[int, int] = field(default_factory=lambda: {2: 0, 3: 0})
    crossing: int = 0

    def add(self, values: list[float], line: str) -> None:
        """Adds the numbers after the class of a line that may be a polygon."""
        self.varies |= self.count not in (0, len(values))
        if self.varies or self.lines == TALLIED:
            return
        self.count, self.lines, self.first = len(values), self.lines + 1, self.first or line
        for numbers in self.fits:
            self.fits[numbers] += _is_box_with_keypoints(values, numbers)
        self.crossing += len(values) >= 10 and _crosses_itself(values)  # at least 3 keypoints

    def check(self, source: str) -> None:
        """Checks that the lines are polygons, as they were read.

        Raises:
            UserError: they may be boxes with keypoints; says how to say which.
        """
        if self.varies or not self.lines:
            return
        numbers = max(self.fits, key=lambda each: self.fits[each])  # 2 if equal
        fit = self.fits[numbers] / self.lines
        if fit < SUSPICIOUS and self.crossing / self.lines < CROSSING:
            return
        keypoints = (self.count - 4) // numbers
        each = "x y" if numbers == 2 else "x y visibility"
        raise UserError(
            f"{source}: all lines of more than 5 numbers have {self.count + 1}: a class, a box and "
            f"{keypoints} keypoints ({each}), or polygons of {self.count // 2} corners? set "
            f"`kpt_shape: [{keypoints}, {numbers}]` or `polygons: true` in the data YAML; "
            f"the first line is {self.first[:60]!r}"
        )


@dataclass(frozen=True, slots=True)
class LineFormat:
    """What the data YAML says about lines.

    Attributes:
        kpt_shape: keypoints after each box and the numbers of each, 2 or 3; None: none.
        polygons: whether lines of more than five numbers are polygons, without a doubt.
    """

    kpt_shape: tuple[int, int] | None = None
    polygons: bool = False


def parse_yolo(
    content: bytes,
    size: tuple[int, int],
    num_classes: int,
    form: LineFormat = LineFormat(),  # frozen
    tally: LineTally | None = None,
) -> LabelFile:
    """Parses one txt file.

    Args:
        content: of the file.
        size: height and width of the image, pixels.
        num_classes: classes are numbered from 0.
        form: of the lines. Of a polygon, the bounding box is used; keypoints are not read.
        tally: counts the lines that may be polygons.
    """
    height, width = size
    labels = LabelFile()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        labels.faults.append(("label not parsed", 0, "not a text file; image skipped"))
        labels.usable = False
        return labels
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            label, *values = map(float, words)
            x1, y1, x2, y2 = _parse_box(values, form)
        except UserError as error:
            labels.faults.append(("label not parsed", number, f"{error}: {line[:60]!r}"))
            continue
        except ValueError:
            labels.faults.append(("label not parsed", number, f"expected numbers: {line[:60]!r}"))
            continue
        if tally is not None and len(values) > 4 and form == LineFormat():
            tally.add(values, line)
        if not label.is_integer():
            what = f"class {words[0]} is not a whole number"
            labels.faults.append(("label not parsed", number, what))
        elif not 0 <= label < num_classes:
            what = f"class {words[0]}; `names` has {num_classes} classes, numbered from 0"
            labels.faults.append(("unknown class", number, what))
        elif any(abs(value) >= MAX_NORMALISED for value in values[:4]):
            what = f"expected fractions of the image's width and height, not pixels: {line[:60]!r}"
            labels.faults.append(("label not parsed", number, what))
        else:
            box = (x1 * width, y1 * height, x2 * width, y2 * height)
            labels.boxes.append((*box, int(label), False, number))
    return labels


def _parse_box(values: list[float], form: LineFormat) -> Box:
    """The corners of the box that the numbers after a class mean, as shares of width and height.

    Raises:
        UserError: they are neither a box nor what `form` says, or may be something else.
    """
    count = len(values)
    expected = 4 if form.kpt_shape is None else 4 + form.kpt_shape[0] * form.kpt_shape[1]
    if count in (4, expected):
        x, y, w, h = values[:4]
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if form.kpt_shape is not None:
        raise UserError(
            f"{count + 1} numbers; expected 5 (box) or {expected + 1} (box and keypoints, by "
            f"`kpt_shape: {list(form.kpt_shape)}`)"
        )
    if count < 6 or count % 2:
        raise UserError(f"{count + 1} numbers; expected 5 (box), or 7, 9, ... (polygon)")
    doubt = _doubt_polygon(values, certain=form.polygons)
    if doubt:
        raise UserError(doubt)
    xs, ys = values[::2], values[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _doubt_polygon(values: list[float], *, certain: bool) -> str:
    """Why the numbers after a class may be no polygon, "" if they are one."""
    low, high = POLYGON_RANGE
    outside = any(not low <= value <= high for value in values if value == value)
    flags = [value in (0, 1, 2) for value in values[6::3]]
    if not certain and len(values) > 6 and len(values) % 3 == 1 and all(flags):
        count = (len(values) - 4) // 3
        return (
            f"a box and {count} keypoints (x y visibility), or a polygon? for keypoints, set "
            f"`kpt_shape: [{count}, 3]` in the data YAML"
        )
    if not certain and len(values) == 6 and values[5].is_integer() and 0 <= values[4] <= 1:
        return "a box, confidence and track id, or a triangle? remove the last two numbers of a box"
    if outside:
        return (
            "not a polygon: its numbers are not shares of width and height; for a box and keypoints, "
            "set `kpt_shape:` in the data YAML"
        )
    return ""


def _is_box_with_keypoints(values: list[float], numbers: int) -> bool:
    """Whether the first four numbers are a box in the image, and the rest keypoints in this box.

    `numbers`: of each keypoint. Keypoints at (0, 0) are not labelled.
    """
    if (len(values) - 4) % numbers:
        return False
    (x, y, w, h), low, high = values[:4], -0.01, 1.01  # rounded
    if not (w > 0 < h and x - w / 2 >= low <= y - h / 2 and x + w / 2 <= high >= y + h / 2):
        return False
    pairs = zip(values[4::numbers], values[5::numbers], strict=True)
    points = [(px, py) for px, py in pairs if (px, py) != (0, 0)]
    reach = 0.5 + KEYPOINT_MARGIN
    if not all(abs(px - x) <= reach * w and abs(py - y) <= reach * h for px, py in points):
        return False
    if len(points) < 2:
        return True
    xs, ys = zip(*points, strict=True)
    spread = max((max(xs) - min(xs)) / w, (max(ys) - min(ys)) / h)
    return spread >= min(MIN_SPREAD * (len(points) - 1), LARGEST_MIN_SPREAD)


def _crosses_itself(values: list[float]) -> bool:
    """Whether two edges of a polygon cross; n^2 steps for n corners."""
    corners = list(zip(values[::2], values[1::2], strict=True))
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    return any(
        _do_cross(*edges[i], *edges[j]) for i in range(len(edges)) for j in range(i + 2, len(edges))
    )


Point = tuple[float, float]


def _do_cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments ab and cd have one point inside both in common."""
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: Point, b: Point, c: Point) -> float:
    """Positive where c is to the left of the line from a to b."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
