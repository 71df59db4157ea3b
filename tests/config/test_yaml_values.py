"""YAML as people write it, and hostile YAML: text as written, all else one line with the file."""

import os

import pytest

from detector.config import Config, config_to_dict, load_config
from detector.config.yaml_tree import parse_value, read_yaml
from detector.data import load_data_yaml
from detector.errors import UserError

NAMES = ("02146", "1.10", "1.1", "true", "TRUE", "no", "~", "null", ".nan", "1e3", "0x1F", "12:30")


def data_yaml(tmp_path, content):
    path = tmp_path / "data.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_data_yaml(str(path))[0]


@pytest.mark.parametrize("form", ["list", "lines", "by number", "quoted"])
def test_names_are_text_as_written(tmp_path, form):
    text = {
        "list": f"names: [{', '.join(NAMES)}]",
        "lines": "names:" + "".join(f"\n- {name}" for name in NAMES),
        "by number": "names:" + "".join(f"\n  {i}: {name}" for i, name in enumerate(NAMES)),
        "quoted": "names: [" + ", ".join(f"'{name}'" for name in NAMES) + "]",
    }[form]
    assert data_yaml(tmp_path, text).names == NAMES


def test_paths_are_text_as_written(tmp_path):
    (tmp_path / "007").mkdir()
    config = data_yaml(tmp_path, "root: 007\ntrain: 01\nval: [1.10, 02]\ntest: ~\n")
    assert (config.root, config.train, config.val) == ("007", "01", ("1.10", "02"))
    assert config.test is None
    config = data_yaml(tmp_path, "train: {images: 2017, annotations: 1.0}")
    assert config.train is not None
    assert (config.train.images, config.train.annotations) == ("2017", "1.0")  # pyright: ignore


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[1.10, 1.10]", "duplicate class name '1.10'"),
        ("cat", "expected a list of class names"),
        ("5", "expected a list of class names"),
        ("[]", "expected a list of class names"),
        ("{}", "expected a list of class names"),
        ("\n- a\n-", "class 1 has no name"),
        ("['']", "class 0 has no name"),
        ("[[a, b]]", "class 0 has the name"),
        ("{0: {name: a}}", "class 0 has the name"),
        ("{0: a, 2: b}", "class 1 is missing"),
        ("{00: a}", "class 0 is missing"),
        (r'["\udc80"]', "cannot be printed"),
    ],
)
def test_names_that_are_no_names(tmp_path, names, message):
    with pytest.raises(UserError, match=rf"data\.yaml:1: names: .*{message}") as caught:
        data_yaml(tmp_path, f"names: {names}")
    assert len(str(caught.value).splitlines()) == 1


def test_settings_that_are_text_are_as_written(tmp_path):
    (tmp_path / "2024.yaml").write_text("data: {classes: [3, 04, 1.10], dataset: 007}\n")
    config = load_config(str(tmp_path / "2024.yaml"))
    assert (config.data.classes, config.data.dataset) == (("3", "04", "1.10"), "007")
    (tmp_path / "child.yaml").write_text("extends: 2024.yaml\ntrain: {device: 0}\n")
    child = load_config(str(tmp_path / "child.yaml"), ["data.classes=[05, true]"])
    assert (child.data.classes, child.train.device) == (("05", "true"), "0")
    assert load_config(str(tmp_path / "child.yaml")).data.classes == ("3", "04", "1.10")
    assert load_config(str(tmp_path / "child.yaml"), ["data.classes=null"]).data.classes is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", r"expected a list \(\[a, b\]\), not '3'"),
        ("[]", "the list is empty; give at least one entry"),
        ("[[a]]", r"data.classes.0: should be a valid string, not \['a'\]"),
        ("{a: b}", r"expected a list \(\[a, b\]\), not"),
    ],
)
def test_a_mistake_in_a_list_is_one_line(tmp_path, value, expected):
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(UserError, match=expected) as caught:
        load_config(str(tmp_path / "a.yaml"), [f"data.classes={value}"])
    assert len(str(caught.value).splitlines()) == 1


HOSTILE = {
    "NUL": b"names: [a\x00]",
    "escaped NUL": rb'root: "a\0b"',
    "half a surrogate pair": rb'names: ["\ud800"]',
    "no code point": rb'names: ["\UFFFFFFFF"]',
    "control character": b"names: [a\x07]",
    "nested lists": b"names: " + b"[" * 100_000,
    "nested sections": b"".join(b" " * i + b"a:\n" for i in range(300)),
    "digits": b"names: [" + b"9" * 5000 + b"]",
    "digits of a float": b"voc_zero_based: 0." + b"9" * 5000,
    "int foo": b"names: [!!int foo]",
    "float foo": b"names: [!!float foo]",
    "empty bool": b"mirrors: !!bool",
    "bool yes": b"mirrors: !!bool yes",
    "null foo": b"root: !!null foo",
    "a list as text": b"names: !!str [a]",
    "a section as a list": b"names: !!seq {a: b}",
    "set": b"names: !!set {a, b}",
    "omap": b"names: !!omap [a: b]",
    "binary": b"names: [!!binary aGk=]",
    "timestamp": b"names: [!!timestamp 2001-01-01]",
    "python": b"names: !!python/tuple [a]",
    "tag of a key": b"!!int names: [a]",
    "merge key": b"<<: {names: [a]}",
    "alias to itself": b"names: &a [*a]",
    "two documents": b"names: [a]\n---\nnames: [b]",
    "list as key": b"? [a]\n: b",
    "not UTF-8": b"names: [\xe9]",
    "UTF-16": "names: [a]".encode("utf-16"),
    "3 MB": b"#" + b"x" * 3_000_000,
    "no such user": b"root: ~nobody-of-this-name/x",
    "too long a name": b"root: " + b"x" * 5000,
    "no such maker": b"make: foo",
    "empty list": b"train: []",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_one_line_with_the_file(tmp_path, content):
    with pytest.raises(UserError) as caught:
        data_yaml(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "data.yaml"))
    assert len(str(caught.value).splitlines()) == 1
    str(caught.value).encode()  # can be printed


def test_a_root_in_the_home_folder_of_a_user_without_one(tmp_path, monkeypatch):
    def fail(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", fail)
    with pytest.raises(UserError, match=r"data\.yaml: root: ~/x .*has no home folder"):
        data_yaml(tmp_path, "root: ~/x")


def test_pipes_devices_and_impossible_names(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for load in (load_data_yaml, load_config):
        for name in (str(tmp_path / "pipe.yaml"), "/dev/zero"):
            with pytest.raises(UserError, match="a device or a pipe, not a file"):
                load(name)
        for name in ("x" * 5000, "a\0b", ""):
            with pytest.raises(UserError, match="no such file"):
                load(name)
    with pytest.raises(UserError, match="a device or a pipe"):
        read_yaml(tmp_path / "pipe.yaml")


def test_file_names_that_are_not_utf8_survive():
    """`--weights` passes them as an escape; they are files nevertheless."""
    assert parse_value(r'"runs/\udce9.pt"', "command line")[0] == "runs/\udce9.pt"


@pytest.mark.parametrize(
    "word",
    [
        f"train.seed={2**64}",
        "train.seed=-1",
        "train.lr=1e308",
        "train.lr=1e400",
        "train.lr_groups={backbone: 1e308}",
        "train.epochs=1000000000000",
        f"train.epochs={'9' * 99}",
        "train.threads=1000000000",
        "train.batch_size=10000000000",
        "train.patience=10000000000",
        "train.checkpoint_every=10000000000",
        "train.warmup_epochs=1e300",
        "train.warmup_min_steps=10000000000000",
        "train.clip_norm=1e308",
        "train.weight_decay=1e308",
        "data.size=1000000",
        "data.size=1048576",
        "data.tile_buffer=10000000000",
        "data.cache_limit=1e300",
        "data.workers=10000000000",
        "bag.dropblock_size=1000001",
        "loss.box=1e308",
        "loss.class_weights=[1e308]",
        "loss.anchor_ratio=1e308",
        "model.anchors=[[[1e-300, 1]]]",
        "model.anchors=[[[1, 1e300]]]",
        "model.decoder={scale_x_y: [1e308]}",
        "eval.scales=[1e9]",
        "eval.scales=[1e-9]",
        "eval.max_detections=1000000000000",
    ],
)
def test_settings_beyond_any_use(tmp_path, word):
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(UserError, match=f"command line: {word.partition('=')[0]}") as caught:
        load_config(str(tmp_path / "a.yaml"), [word])
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 250


def test_every_number_of_the_schema_has_a_largest_value():
    """Whatever is accepted has to fit into an int64 and, with room for products, a float32."""
    for section, values in config_to_dict(Config()).items():
        for key, value in values.items() if isinstance(values, dict) else ():
            if type(value) in (int, float):
                with pytest.raises(UserError):
                    load_config("yolov4-pacsp-n-mish.yaml", [f"{section}.{key}={10**40}"])
