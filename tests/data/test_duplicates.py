from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.data.checks.duplicates import (
    MAX_BITS,
    MAX_RESIDUE,
    NOISE,
    find_equal_pairs,
    find_similar_pairs,
)
from detector.data.checks.images import difference_hash, summarise_image
from tests.data.scenes import scene


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


COPIES = {
    "recompressed": lambda image: jpeg(image, 30),
    "smaller": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "wider": lambda image: cv2.resize(image, (400, 240)),
    "brighter": lambda image: cv2.convertScaleAbs(image, beta=10),
    "a stranger passes": lambda image: cv2.rectangle(image.copy(), (24, 20), (40, 40), 0, -1),
}


@pytest.mark.parametrize("name", COPIES)
def test_changed_copies_are_detected_and_other_images_are_not(name):
    images = [scene(seed) for seed in range(20)]
    images += [COPIES[name](scene(seed)) for seed in range(20)]
    bits, small = zip(*map(difference_hash, images), strict=True)
    pairs = find_similar_pairs(np.stack(bits), np.stack(small), np.repeat([0, 1], 20))
    assert pairs.tolist() == [[n, n + 20] for n in range(20)]


def reference_pairs(hashes, thumbnails, split):
    """Every pair, by definition: for each image the most similar earlier one of either kind."""
    pairs = []
    for same in (True, False):
        for later in range(len(hashes)):
            similar = []
            for earlier in range(later):
                bits = int(np.unpackbits(hashes[earlier] ^ hashes[later]).sum())
                a, b = (thumbnails[i].astype(float) for i in (earlier, later))
                a, b = a - a.mean(), b - b.mean()
                limit = max(MAX_RESIDUE * max(a.std(), b.std()), NOISE)
                word = (hashes[earlier].view(np.uint16) == hashes[later].view(np.uint16)).any()
                alike = word and bits <= MAX_BITS and np.sqrt(((a - b) ** 2).mean()) <= limit
                if alike and (split[earlier] == split[later]) == same:
                    similar.append((bits, earlier))
            if similar:
                pairs.append([min(similar)[1], later])
    return pairs


@pytest.mark.parametrize("seed", range(5))
def test_the_search_equals_comparing_all_pairs(seed):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, (6, 16), np.uint8)
    hashes = base[rng.integers(0, 6, 80)].copy()
    for row in hashes:
        for bit in rng.choice(128, rng.integers(0, 9), replace=False):
            row[bit // 8] ^= 1 << (bit % 8)
    thumbnails = rng.integers(100, 103, (80, 16, 16), np.uint8)  # some pass, some do not
    thumbnails += rng.integers(0, 2, (80, 1, 1), np.uint8) * np.tri(16, dtype=np.uint8) * 30
    split = np.sort(rng.integers(0, 3, 80))
    similar = find_similar_pairs(hashes, thumbnails, split)
    expected = reference_pairs(hashes, thumbnails, split)
    assert len(expected) > 20
    assert similar.tolist() == expected


def test_hashes_up_to_seven_bits_apart_are_always_compared(rng):
    for _ in range(50):
        hashes = np.tile(rng.integers(0, 256, 16, np.uint8), (2, 1))
        for bit in rng.choice(128, 7, replace=False):
            hashes[1, bit // 8] ^= 1 << (bit % 8)
        even = np.full((2, 16, 16), 99, np.uint8)
        assert find_similar_pairs(hashes, even, np.zeros(2, int)).tolist() == [[0, 1]]


def test_a_thousand_equal_images_have_one_partner_each():
    hashes = np.zeros((1000, 16), np.uint8)
    even = np.zeros((1000, 16, 16), np.uint8)
    pairs = find_similar_pairs(hashes, even, np.repeat([0, 1], 500))
    assert len(pairs) == 499 + 499 + 500
    assert set(pairs[:, 0].tolist()) == {0, 500}


def test_equal_files_are_paired_with_the_first():
    digests = np.array([b"a", b"b", b"a", b"a", b"c", b"b"])
    assert find_equal_pairs(digests, np.array([0, 0, 0, 1, 1, 1])).tolist() == [
        [0, 2],
        [0, 3],
        [1, 5],
    ]


def test_nothing_to_compare():
    none = np.zeros((0, 16), np.uint8)
    assert find_similar_pairs(none, np.zeros((0, 16, 16), np.uint8), np.zeros(0, int)).shape == (
        0,
        2,
    )
    assert find_equal_pairs(np.zeros(0, "S2"), np.zeros(0, int)).shape == (0, 2)


def test_a_uniform_image_has_a_uniform_hash():
    bits, small = difference_hash(np.full((50, 70, 3), 90, np.uint8))
    assert not bits.any()
    assert (small == 90).all()


def test_equal_files_have_equal_summaries(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), scene(1, 30, 40))
    one = summarise_image(path)
    assert one.size == (30, 40)
    Path(tmp_path / "b.png").write_bytes(path.read_bytes())
    other = summarise_image(tmp_path / "b.png")
    assert one.digest == other.digest
    assert (one.hash == other.hash).all()
