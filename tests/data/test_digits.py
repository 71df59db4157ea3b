import hashlib
import json

import cv2
import numpy as np
import pytest

from detector.data.digits import generate as digits
from detector.data.digits.credits import PHOTOS
from detector.data.digits.generate import ensure_digits, make_digits
from detector.errors import UserError


def test_the_same_bytes_again(digits_root, tmp_path):
    make_digits(tmp_path / "again", 12, 5)
    files = sorted(p.relative_to(digits_root) for p in digits_root.rglob("*") if p.is_file())
    assert len(files) == 12 + 5 + 4
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (digits_root / name).read_bytes(), name


def test_the_bytes_do_not_depend_on_threads(tmp_path):
    threads = cv2.getNumThreads()
    digests = []
    try:
        for number in (1, 4):
            cv2.setNumThreads(number)
            make_digits(tmp_path / str(number), 2, 1)
            manifest = json.loads((tmp_path / str(number) / "manifest.json").read_text())
            digests.append(manifest["sha256"])
    finally:
        cv2.setNumThreads(threads)
    assert digests[0] == digests[1]


def test_train_and_val_share_neither_digits_nor_pixels_of_photos():
    train, val = digits._load_sources()
    for label in range(10):
        assert not set(train.digits[label]) & set(val.digits[label])
        assert len(train.digits[label]) > 3 * len(val.digits[label]) > 60
    for photo, a, b in zip(PHOTOS, train.regions, val.regions, strict=True):
        whole = digits._read_photo(photo)
        assert a.shape[0] * a.shape[1] + b.shape[0] * b.shape[1] == whole.shape[0] * whole.shape[1]
        assert min(*a.shape[:2], *b.shape[:2]) >= digits._MIN_CROP


def test_many_sizes_and_enough_of_them():
    """Log-uniform from 10 to 140 px, five or more an image; the same in both splits."""
    for split, source in enumerate(digits._load_sources()):
        sides, counts = [], []
        for number in range(60):
            _, boxes, labels = digits.draw_image(np.random.default_rng([9, split, number]), source)
            counts.append(len(labels))
            sides += [max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
            assert all(0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 320 for x1, y1, x2, y2 in boxes)
        assert np.mean(counts) >= 5
        assert 9 <= min(sides) <= 12
        assert 125 <= max(sides) <= 141
        assert np.histogram(np.log(sides), 3)[0].min() > 0.2 * len(sides)


def test_boxes_are_exact():
    """A sticker changes the pixels in its box and, but for the fading edge, no others."""
    source = digits._load_sources()[0]
    glyph = source.glyphs[source.digits[3][0]]
    for side in (10, 33, 90, 140):
        sticker = digits.render_sticker(glyph, side, 15.0, 0.9)
        canvas = np.full((240, 240, 3), 255, np.uint8)
        digits.paste(canvas, sticker, 40, 50, (255, 255, 255))
        x1, y1, x2, y2 = sticker.box
        width, height = x2 - x1, y2 - y1
        assert abs(max(width, height) - side) <= 1
        changed = (canvas < 128).any(-1)
        rows, columns = np.nonzero(changed)
        assert abs(columns.min() - 40) <= 1
        assert abs(rows.min() - 50) <= 1
        assert abs(columns.max() + 1 - 40 - width) <= 1
        assert abs(rows.max() + 1 - 50 - height) <= 1


def test_credits_name_every_photographer(digits_root):
    text = (digits_root / "CREDITS.md").read_text()
    assert all(photo.author in text and photo.licence in text for photo in PHOTOS)


@pytest.fixture
def small(monkeypatch):
    made = []

    def make(root):
        made.append(root)
        make_digits(root, 1, 1)

    monkeypatch.setattr(digits, "make_digits", make)
    return made


def test_the_data_set_is_made_once(small, tmp_path):
    root = tmp_path / "digits"
    assert ensure_digits(root) == root
    first = hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
    ensure_digits(root)
    assert len(small) == 1
    assert hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest() == first
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_an_older_version_is_made_again(small, tmp_path, monkeypatch):
    root = tmp_path / "digits"
    ensure_digits(root)
    monkeypatch.setattr(digits, "GENERATOR_VERSION", 999)
    ensure_digits(root)
    assert len(small) == 2


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not the digits data set"):
        ensure_digits(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_stopped_run_leaves_nothing(tmp_path, monkeypatch):
    def stopped(root):
        root.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, "make_digits", stopped)
    with pytest.raises(KeyboardInterrupt):
        ensure_digits(tmp_path / "digits")
    assert not list(tmp_path.iterdir())
