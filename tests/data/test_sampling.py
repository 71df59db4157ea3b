from pathlib import Path

import numpy as np
import pytest

from detector.data import EpochOrder, EpochSampler, Index, class_balance, repeat_factors
from detector.data.sampling import draw_order, epoch_length


def index_of(labels, classes, crowds=()):
    """An index with these labels on each image; `crowds`: positions of boxes that are crowds."""
    flat = np.array([label for image in labels for label in image], np.int64)
    n, m = len(labels), len(flat)
    return Index(
        folder=Path(),
        files=np.array([f"{i}.jpg" for i in range(n)]),
        image_ids=np.arange(n),
        sizes=np.full((n, 2), 10),
        starts=np.concatenate([[0], np.cumsum([len(image) for image in labels])]).astype(np.int64),
        boxes_xyxy=np.zeros((m, 4), np.float32),
        labels=flat,
        crowd=np.isin(np.arange(m), crowds),
        names=tuple("abcdefgh"[:classes]),
        category_ids=np.arange(classes),
        annotations=Path("none.json"),
        findings=(),
        clipped=np.zeros(m, bool),
    )


def test_repeat_factors_by_hand():
    # a on 4 of 8 images, b on 2, c on 1; two without boxes
    labels = [[0, 0], [0], [0, 1], [0], [1, 1, 1], [2], [], []]
    factors = repeat_factors(index_of(labels, 3), 0.5)
    a, b, c = 1.0, np.sqrt(0.5 / 0.25), np.sqrt(0.5 / 0.125)
    assert factors == pytest.approx([a, a, b, a, b, c, 1, 1])
    assert repeat_factors(index_of(labels, 3), 0.001).tolist() == [1.0] * 8


def test_crowds_are_not_objects_and_classes_may_have_no_images():
    labels = [[0], [0, 1], [0]]
    assert repeat_factors(index_of(labels, 4, crowds=[2]), 0.9).tolist() == [1.0] * 3
    assert class_balance(index_of(labels, 4, crowds=[2])).tolist() == [1.0] * 3
    assert class_balance(index_of([[], []], 2)).tolist() == [1.0, 1.0]


def test_class_balance_samples_every_class_equally_often():
    labels = [[0]] * 90 + [[1]] * 9 + [[2]] + [[]] * 10
    factors = class_balance(index_of(labels, 3))
    by_class = [factors[:90].sum(), factors[90:99].sum(), factors[99]]
    assert by_class == pytest.approx([100 / 3] * 3)
    assert factors[100:].tolist() == [1.0] * 10
    assert factors.sum() == pytest.approx(110)


def test_an_epoch_holds_the_whole_parts_and_draws_the_fractions(rng):
    repeats = np.array([1.0, 2.5, 1.25, 0.0, 3.0, 0.25])
    counts = np.zeros(6)
    for _ in range(4000):
        order = draw_order(rng, repeats)
        assert len(order) == epoch_length(repeats) == 8
        assert len(set(order.tolist())) == 8  # a repeated image has an index of its own
        counts += np.bincount(order % 6, minlength=6)
    assert counts / 4000 == pytest.approx(repeats, abs=0.05)


def test_repeats_of_one_give_each_image_once(rng):
    assert sorted(draw_order(rng, np.ones(50))) == list(range(50))


def keys_of(sampler, epoch):
    sampler.epoch = epoch
    return list(sampler)


def test_the_sampler_repeats_by_seed_and_epoch():
    repeats = np.linspace(0.5, 3, 20)
    one, two = (EpochSampler(EpochOrder(20, 7, repeats), 4) for _ in range(2))
    assert keys_of(one, 3) == keys_of(two, 3)
    assert keys_of(one, 3) != keys_of(one, 4)
    assert len(keys_of(one, 0)) == len(one) == 9  # 35 samples


def test_a_batch_has_one_size_which_seed_epoch_and_batch_fix():
    sides = [64, 96, 128]
    sampler = EpochSampler(EpochOrder(400, 7), 2, sizes=sides)
    batches = keys_of(sampler, 1)
    sizes = [batch[0][2] for batch in batches]
    assert all(key[2] == size for batch, size in zip(batches, sizes, strict=True) for key in batch)
    assert set(sizes) == {(h, w) for h in sides for w in sides}
    sampler.start = 5  # a run that resumes within the epoch
    assert keys_of(sampler, 1) == batches[5:]
    sampler.start = 0
    shares = [
        EpochSampler(EpochOrder(400, 7), 2, sizes=sides, rank=r, world_size=2) for r in range(2)
    ]
    together = [keys_of(share, 1) for share in shares]
    assert [[*a, *b] for a, b in zip(*together, strict=True)] == batches
    assert sizes != [batch[0][2] for batch in keys_of(sampler, 2)]


def test_sizes_do_not_change_the_order():
    plain, sized = (
        EpochSampler(EpochOrder(20, 7), 4),
        EpochSampler(EpochOrder(20, 7), 4, sizes=[32, 64]),
    )
    assert keys_of(plain, 2) == [[key[:2] for key in batch] for batch in keys_of(sized, 2)]


def test_the_key_of_a_sample():
    sampler = EpochSampler(EpochOrder(20, 7), 4, sizes=[32, 64, 96])
    keys = [key for batch in keys_of(sampler, 5) for key in batch]
    sampler.epoch, sampler.start = 1, 2
    assert all(sampler.key(5, key[1]) == key for key in keys)
    assert sampler.key(5, 20) is None
    assert (sampler.epoch, sampler.start) == (1, 2)


@pytest.mark.parametrize("repeats", [None, np.linspace(0.1, 3, 20)])
def test_position_is_the_inverse_of_indices(repeats):
    order = EpochOrder(20, 7, repeats)
    for epoch in (2, 3, 2):
        indices = order.indices(epoch).tolist()
        assert len(indices) == order.length
        assert [order.position(epoch, index) for index in indices] == list(range(len(indices)))
        absent = set(range(70)) - set(indices)
        assert all(order.position(epoch, index) is None for index in (*absent, -1))
