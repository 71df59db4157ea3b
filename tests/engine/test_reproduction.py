import json
import math

import numpy as np
import pytest

from detector.device import scale_images
from detector.engine import (
    FIRST_BATCHES,
    EventLog,
    Manifest,
    compare_losses,
    compare_manifests,
    read_first_losses,
)
from detector.errors import UserError
from tests.engine.small_trainer import Loader, make


def recorded(path, **settings):
    make(observers=[EventLog(path)], **settings).run()
    return read_first_losses(path)


def test_losses_of_the_first_batches_are_exact(tmp_path):
    class Long(Loader):
        sizes = (4,) * 7

    loader = Long()
    losses = recorded(tmp_path / "a.jsonl", loader=loader, accumulate=2)
    assert list(losses) == [divmod(n, 7) for n in range(7, 7 + FIRST_BATCHES)]  # epochs from 1
    assert all(set(each) == {"a", "b"} for each in losses.values())
    assert losses == recorded(tmp_path / "b.jsonl", loader=loader, accumulate=2)
    # the first batch's, computed beside
    trainer = make(loader=loader)
    batch = next(loader.epoch(0))
    raw = trainer.model(scale_images(batch.images))
    weights = trainer.criterion.weights
    terms = trainer.criterion(raw.detach(), batch, None)
    expected = {name: weights[name] * value.item() for name, value in terms.items()}
    assert losses[1, 0] == pytest.approx(expected, rel=1e-6)


def test_the_last_bit_makes_a_difference():
    one = {(1, n): {"box": 0.1, "obj": math.nan} for n in range(5)}
    assert compare_losses(one, one, 20) == (5, None)
    assert compare_losses(one, one, 3) == (3, None)
    other = {place: dict(losses) for place, losses in one.items()}
    other[1, 3]["box"] = float(np.nextafter(0.1, 1))
    number, text = compare_losses(one, other, 20)
    assert number == 4
    assert text == "batch 4 (epoch 1, batch 4): box 0.1, now 0.10000000000000002"
    assert compare_losses(one, other, 3) == (3, None)
    assert compare_losses(one, {(1, 0): {"box": 0.1}}, 20)[1].endswith("obj nan, now None")
    with pytest.raises(UserError, match="no recorded batch in common"):
        compare_losses(one, {(2, 0): {}}, 20)


def test_an_incomplete_last_line_is_ignored(tmp_path):
    path = tmp_path / "a.jsonl"
    losses = recorded(path)
    path.write_text(path.read_text() + '{"event": "first lo')
    assert read_first_losses(path) == losses
    with pytest.raises(UserError, match="no recorded losses"):
        read_first_losses(tmp_path / "none.jsonl")


def test_what_may_explain_a_difference(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, images in zip(paths, (12, 13), strict=True):
        data = {"train": {"images": images, "digest": "x"}}
        make(epochs=1, observers=[Manifest(path, config={}, data=data)]).run()
    assert compare_manifests(*paths) == ["data.train.images: 12, now 13"]
    assert compare_manifests(paths[0], paths[0]) == []
    tree = json.loads(paths[1].read_text())
    tree["sessions"][0]["versions"]["torch"] = "0.1"
    tree["sessions"][0]["git"] = None
    paths[1].write_text(json.dumps(tree))
    differences = compare_manifests(*paths)
    assert any(
        line.startswith("versions.torch: ") and line.endswith("now 0.1") for line in differences
    )
    assert compare_manifests(paths[0], tmp_path / "c.json") == [
        f"{tmp_path / 'c.json'}: missing or unreadable"
    ]
