"""Checkpoints from strangers and broken disks: each loads, or ends in one line that names the file."""

import random
import re
import warnings
import zipfile

import pytest
import torch

from detector.build import build_network
from detector.config import config_to_dict
from detector.engine import load_checkpoint, load_newest, save_checkpoint
from detector.engine.checkpoint import FORMAT, digest
from detector.engine.checkpoint_content import require_plain
from detector.errors import UserError
from detector.weights.darknet import read_config
from detector.weights.load import load_model
from tests.engine.small_trainer import make
from tests.hostile import damage_bytes, damage_content, endless, laughs, remove, replace_at
from tests.models import darknet_texts as texts


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What a last.pt holds: a network of a small cfg, and the state of a trainer after one epoch."""
    cfg = tmp_path_factory.mktemp("cfg") / "my.cfg"
    cfg.write_text(texts.everything(new_coords=1))
    config = read_config(str(cfg))
    trainer = make(epochs=1)
    trainer.run()
    split = {"images": 3, "digest": "1f"}
    return {
        "config": config_to_dict(config),
        "names": ["a", "b"],
        "data": {"train": split, "val": split, "findings": {}},
        "weights": build_network(config.model, 2).state_dict(),
        "epoch": 1,
        "metrics": {"AP": 0.5},
        "darknet": {"header": [0, 2, 5, 7], "order": "darknet"},
        "training": trainer.state_dict(),
    }


def write_any(path, content, **keys):
    """Writes a content of any kind, with its digest where it has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the kinds of tensors
        try:
            require_plain(content, path)
            keys = {"digest": digest(content), **keys}
        except UserError:
            keys = {"digest": "", **keys}
        torch.save({"format": FORMAT, **keys, **content}, path)


def use(path):
    """Everything that reads a checkpoint: detection, and a run that resumes and trains on."""
    loaded = load_checkpoint(path)
    load_model(path)
    if loaded.get("training"):
        trainer = make(epochs=2)
        trainer.load_state_dict(loaded["training"], str(path))
        trainer.run()
    return loaded


def refuse_damaged_bytes(path, content, seeds):
    save_checkpoint(path, content)
    whole, expected = path.read_bytes(), digest(load_checkpoint(path))
    for seed in seeds:
        path.write_bytes(damage_bytes(whole, random.Random(seed)))
        try:
            found = digest(load_checkpoint(path))
        except UserError as error:
            found = expected if re.fullmatch(rf"{path}: .*", str(error)) else str(error)
        assert found == expected, f"seed {seed}: other values are loaded, or a bad message"


def refuse_damaged_content(path, content, seeds):
    for seed in seeds:
        what, damaged = damage_content(content, random.Random(seed))
        try:
            write_any(path, damaged)
        except Exception:  # torch cannot write this one
            continue
        message = ""
        try:
            use(path)
        except UserError as error:
            message = str(error)
        # a setting that is possible may still end the training: a factor of inf
        known = not message or str(path) in message or "non-finite loss" in message
        assert known, f"seed {seed}: {what}: {message}"


def test_damaged_bytes(tmp_path, content):
    refuse_damaged_bytes(tmp_path / "x.pt", content, range(60))


def test_damaged_content(tmp_path, content):
    refuse_damaged_content(tmp_path / "x.pt", content, range(25))


@pytest.mark.slow
def test_more_damaged_bytes(tmp_path, content):
    refuse_damaged_bytes(tmp_path / "x.pt", content, range(60, 400))


@pytest.mark.slow
def test_more_damaged_content(tmp_path, content):
    refuse_damaged_content(tmp_path / "x.pt", content, range(25, 100))


def set_to(value):
    return lambda container, key: container.__setitem__(key, value)


MOMENTUM = ("training", "optimizer", "state", 0, "momentum_buffer")
CASES = {
    "a weight that is no tensor": (("weights", "layers.0.conv.weight"), 7, "weights.layers.0.conv"),
    "a tensor of 4 TB": (
        ("weights", "x"),
        torch.zeros(1).expand(10**12),
        "claims 4,000,000,000,000",
    ),
    "a 4 TB tensor elsewhere": (("extra",), torch.zeros(1).expand(10**12), "claims 4,000,000,000"),
    "a tensor without memory": (("weights", "x"), torch.zeros(1, device="meta"), "another kind"),
    "a sparse tensor": (("weights", "x"), torch.eye(2).to_sparse(), "another kind"),
    "weights of whole numbers": (
        ("weights", "layers.0.conv.weight"),
        torch.ones(1, dtype=torch.int64),
        "weights of another model",
    ),
    "names that are numbers": (
        ("names", 0),
        7,
        "'names.0' should be a valid string, but is a value of type int",
    ),
    "names that are no text": (("names", 0), "\ud800", "'names.0' "),
    "no names": (("names",), [], "'names' "),
    "a set": (("extra",), {1}, "a value of type set"),
    "nesting without end": (("extra",), endless(), "nested without end"),
    "a shared list": (("extra",), laughs(), "it holds 2,111,111,11"),
    "an older training state": (
        ("training", "progress", "epoch"),
        remove,
        "'training.progress.epoch'",
    ),
    "no progress": (("training", "progress"), remove, "it has no 'training.progress'"),
    "an epoch in words": (("training", "progress", "epoch"), "two", "'training.progress.epoch'"),
    "losses that are vectors": (
        ("training", "progress", "totals"),
        [{"box": torch.ones(3)}],
        "one number per loss",
    ),
    "no optimizer": (("training", "optimizer"), remove, "it has no 'training.optimizer'"),
    "an optimizer of another shape": (MOMENTUM, torch.ones(5), "'momentum_buffer' of parameter 0"),
    "an optimizer without momentum": (MOMENTUM, remove, "parameter 0 has no 'momentum_buffer'"),
    "a decay in words": (
        ("training", "optimizer", "param_groups", 0, "weight_decay"),
        "x",
        "'weight_decay' is a str",
    ),
    "another generator": (
        ("training", "generators", 0, "cpu"),
        torch.ones(3),
        "the training state cannot be restored",
    ),
    "a python generator": (
        ("training", "generators", 0, "python"),
        [3, [1], None],
        "the training state cannot be restored",
    ),
    "a model of another shape": (("training", "model", "0.bias"), torch.ones(9), "another model"),
    "a config of another type": (("config", "model"), 7, "model: expected a section"),
    "an unknown network": (("config", "model", "darknet_cfg"), None, "last.pt: unknown model.arch"),
    "a network of 10^18 numbers": (
        ("config", "model", "darknet_cfg"),
        texts.everything(new_coords=1).replace("filters=8", "filters=1000000000", 1),
        "filters=1000000000: expected numbers of at most 1000000",
    ),
    "half of the data": (("data", "val"), remove, "'data' val is missing"),
    "a header of five numbers": (("darknet", "header"), [0, 2, 5, 7, 1], "'darknet.header"),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_content_is_one_line(tmp_path, content, case):
    path, value, message = CASES[case]
    change = remove if value is remove else set_to(value)
    write_any(tmp_path / "last.pt", replace_at(content, path, change))
    with pytest.raises(UserError, match=message) as caught:
        use(tmp_path / "last.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'last.pt'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["detector-\u00b2", "detector-", "detector--1", "detector-1_0", 7, None]
)
def test_a_format_that_is_no_number(tmp_path, content, name):
    write_any(tmp_path / "last.pt", {**content, "format": name})
    with pytest.raises(UserError, match=r"last\.pt: (unknown format|not a checkpoint of this)"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("version", [1, 2])
def test_a_digest_belongs_to_the_format(tmp_path, content, version):
    """Format 2 always has one; format 1 had none, so one there is the trace of a changed version."""
    keys = {"digest": digest(content)} if version == 1 else {}
    torch.save({"format": f"detector-{version}", **keys, **content}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt: damaged: its content does not match its digest"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_flipped_bit_in_the_name_of_the_digest(tmp_path, content):
    path = tmp_path / "x.pt"
    save_checkpoint(path, content)
    whole = path.read_bytes()
    at = whole.index(b"digest")
    for bit in range(48):
        flipped = bytearray(whole)
        flipped[at + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"x\.pt: "):
            load_checkpoint(path)


def test_compressed_records_are_refused_before_they_are_unpacked(tmp_path, content):
    path = tmp_path / "x.pt"
    save_checkpoint(path, content)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match=r"x\.pt: malformed: its records are compressed"):
        load_checkpoint(path)


@pytest.mark.parametrize("with_generators", [True, False])
def test_the_first_format_resumes(tmp_path, content, with_generators):
    """As its versions wrote it: at first without the states of the random generators."""
    path, training = tmp_path / "last.pt", dict(content["training"])
    generators = training.pop("generators")
    if with_generators:
        training["generators"] = {name: generators[0][name] for name in ("cpu", "cuda")}
    progress = training["progress"]
    training["progress"] = {name: progress[name] for name in ("epoch", "best_ap")}
    first = {key: content[key] for key in ("config", "names", "weights", "epoch", "metrics")}
    torch.save({"format": "detector-1", **first, "training": training}, path)
    trainer = make(epochs=2)
    lines = trainer.load_state_dict(load_checkpoint(path)["training"], str(path))
    assert (trainer.progress.epoch, trainer.progress.batch) == (1, 0)
    assert trainer.progress.best_ap == progress["best_ap"]
    assert [re.sub(r".*last\.pt", "last.pt", line) for line in lines] == (
        []
        if with_generators
        else [
            "last.pt has no states of random generators: layers that draw (DropBlock, rrelu) draw "
            "different numbers"
        ]
    )
    trainer.run()


def test_a_malformed_last_checkpoint_is_replaced_by_the_one_before(tmp_path, content):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    write_any(last, {**content, "names": [7]})
    save_checkpoint(previous, content)
    state, path, line = load_newest(last, previous)
    assert (state["names"], path) == (["a", "b"], previous)
    assert line.startswith(f"{last}: malformed: 'names.0'")
