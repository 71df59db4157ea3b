import pickle

import numpy as np
import pytest

from detector.data.store.index import StringArray, choose_classes, make_index
from detector.errors import UserError


def index_of(boxes, labels, owner, images=3, size=(50, 80)):
    return make_index(
        folder=None,
        files=[f"{n}.jpg" for n in range(images)],
        image_ids=np.arange(images),
        sizes=np.array([size] * images),
        owner=np.array(owner, np.int64),
        boxes_xyxy=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.zeros(len(labels), bool),
        names=("a", "b", "c"),
        category_ids=np.array([4, 5, 9]),
        annotations=None,
        findings=(),
        where=lambda row: f"row {row}",
    )


def test_string_arrays_are_sequences():
    words = ["a.jpg", "", "\u00e4/\u4e2d.png", "x" * 1000, "odd-\udcff.jpg"]
    texts = StringArray.pack(words)
    assert list(texts) == texts.tolist() == words
    assert texts[-1] == texts[np.int64(4)] == words[-1]
    assert list(texts[1:4:2]) == words[1:4:2]
    assert words[2] in texts
    assert len(StringArray.pack([])) == 0
    with pytest.raises(IndexError):
        texts[5]


def duplicates_slowly(boxes, labels, owner):
    """Each row that equals an earlier one."""
    rows = [(*map(float, b), *rest) for b, *rest in zip(boxes.tolist(), labels, owner, strict=True)]
    return [n for n, row in enumerate(rows) if row in rows[:n]]


@pytest.mark.parametrize("seed", range(20))
def test_duplicates_are_reported_and_kept(seed):
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, 3, 40))
    labels = rng.integers(0, 2, 40).tolist()
    corner = rng.integers(0, 3, (40, 2)) * 10.0
    boxes = np.concatenate([corner, corner + rng.integers(1, 3, (40, 2)) * 5.0], 1)
    index = index_of(boxes, labels, owner)
    reported = [int(f.where.split()[1]) for f in index.findings if f.kind == "duplicate box"]
    assert reported == duplicates_slowly(boxes, labels, owner.tolist())
    assert len(index.boxes_xyxy) == 40
    assert not any(finding.skipped for finding in index.findings)


def test_boxes_are_clipped_and_faulty_ones_reported():
    nan = float("nan")
    boxes = [
        *([-5, -5, 5, 5], [5, 5, 5, 9], [9, 9, 5, 20], [80, 0, 90, 9], [nan, 0, 1, 1]),
        [0, 0, np.inf, 9],
    ]
    index = index_of(boxes, [0] * 6, [0, 0, 0, 1, 1, 2])
    assert index.boxes_xyxy.tolist() == [[0, 0, 5, 5]]
    assert index.clipped.tolist() == [True]
    assert index.starts.tolist() == [0, 1, 1, 1]
    assert [(f.kind, f.where) for f in index.findings] == [
        *(("flat box", "row 1"), ("flat box", "row 2"), ("box outside", "row 3")),
        *(("not finite", "row 4"), ("not finite", "row 5")),
    ]


def test_choosing_classes():
    index = index_of([[0, 0, n, n] for n in range(1, 6)], [0, 1, 2, 1, 0], [0, 0, 1, 1, 2])
    some = choose_classes(index, ("c", "a"))
    assert some.labels.tolist() == [1, 0, 1]
    assert some.starts.tolist() == [0, 1, 2, 3]
    assert some.clipped.tolist() == [False] * 3
    assert some.category_ids.tolist() == [9, 4]
    assert choose_classes(index, index.names).labels.tolist() == index.labels.tolist()
    assert len(choose_classes(index, ("b",)).files) == 3
    with pytest.raises(UserError, match="no class 'd' "):
        choose_classes(index, ("d",))


def test_an_index_can_be_pickled():
    index = index_of([[0, 0, n, n] for n in range(1, 6)], [0, 1, 2, 1, 0], [0, 0, 1, 1, 2])
    again = pickle.loads(pickle.dumps(index))
    assert list(again.files) == list(index.files)
    assert np.array_equal(again.boxes_xyxy, index.boxes_xyxy)
    assert again.findings == index.findings
