from pathlib import Path

import pytest

from detector.config import (
    Config,
    config_from_dict,
    config_to_dict,
    dump_config,
    find_file,
    load_config,
)
from detector.errors import UserError

CONFIGS = sorted(Path(__file__).parents[2].joinpath("configs").glob("*.yaml"))


def load(tmp_path, text, *overrides):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_config(str(path), overrides)


def complaint(tmp_path, text, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_published_config_loads_and_round_trips(path, tmp_path):
    config = load_config(path.name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config))
    assert load_config(str(copy)) == config
    assert config_from_dict(config_to_dict(config), "memory") == config


@pytest.mark.parametrize("size", ["-n", "-s", "", "-x"])
def test_mish_and_leaky_configs_differ_in_one_word(size):
    mish, leaky = (
        find_file(f"yolov4-pacsp{size}-{name}.yaml", "configs").read_text().split()
        for name in ("mish", "leaky")
    )
    different = [(a, b) for a, b in zip(mish, leaky, strict=True) if a != b]
    assert different == [("mish", "leaky_relu")]


def test_an_empty_file_is_the_defaults(tmp_path):
    assert load(tmp_path, "") == Config()


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-3", 0.001), ("1", 1.0), (".5", 0.5), ("1.", 1.0), ("5E-2", 0.05), ("+0.25", 0.25)],
)
def test_numbers_are_numbers(tmp_path, written, value):
    assert load(tmp_path, f"train:\n  lr: {written}").train.lr == value
    assert load(tmp_path, "", f"train.lr={written}").train.lr == value


@pytest.mark.parametrize("word", ["yes", "on", "1", "'true'"])
def test_only_true_and_false_are_booleans(tmp_path, word):
    text = complaint(tmp_path, f"train:\n  channels_last: {word}")
    assert "run.yaml:2: train.channels_last: should be a valid boolean" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  lrr: 1", "run.yaml:2: unknown key train.lrr; did you mean train.lr?"),
        ("train:\n  size: 640", "unknown key train.size; did you mean data.size?"),
        ("epochs: 3", "run.yaml:1: unknown key epochs; did you mean train.epochs?"),
        ("trian:\n  lr: 1", "unknown key trian; did you mean train?"),
        ("train:\n  epochs: many", "run.yaml:2: train.epochs: should be a valid integer"),
        ("train:\n  epochs: 1.5", "train.epochs: should be a valid integer"),
        ("train:\n  epochs: true", "train.epochs: should be a valid integer"),
        ("train:\n  lr: true", "train.lr: should be a valid number"),
        ("train:\n  lr: .inf", "train.lr: should be a finite number"),
        ("train:\n  lr: -1", "train.lr: should be greater than 0"),
        ("train: 5", "run.yaml:1: train: expected a section with keys, not 5"),
        ("train:\n  precision: int8", "train.precision: should be 'auto', 'fp32', 'bf16' or"),
        ("data:\n  size: 100", "run.yaml:1: data: size 100 is not a multiple"),
        (
            "model:\n  anchors: [[[1, 2]], []]",
            "run.yaml:1: model: anchors: give one list per level",
        ),
        ("model:\n  anchors: [[[1, -2]], [[1, 2]], [[1, 2]]]", "run.yaml:2: model.anchors.0.0.1:"),
        ("model:\n  activation: {backbone: mish}", "model.activation.neck: this key is missing"),
        ("model:\n  activation: 5", "model.activation: should be a valid string, not 5"),
        ("train:\n  lr: 1\n  lr: 2", "run.yaml:3: duplicate key train.lr (first on line 2)"),
        ("train: [1", "run.yaml:1: not YAML:"),
        ("- 1\n- 2", "run.yaml:1: expected `key: value` lines"),
        ("model: &a {arch: x}\ndata: *a", "run.yaml:2: not YAML: aliases"),
        ("model: !!python/name:os.system x", "run.yaml:1: tag"),
        ("extends: nowhere.yaml", "run.yaml:1: extends: nowhere.yaml: no such file"),
        ("extends: [a]", "run.yaml:1: extends: expected one file name"),
        ("extends: run.yaml", "extends itself: run.yaml -> run.yaml"),
    ],
)
def test_mistakes_name_file_line_key_and_remedy(tmp_path, text, expected):
    assert expected in complaint(tmp_path, text)


def test_all_mistakes_at_once(tmp_path):
    text = complaint(tmp_path, "train:\n  lr: x\n  epochs: 0\nloss:\n  boxx: 1\n", "eval.conf=7")
    assert {line.split(": ")[0] for line in text.splitlines()} == {
        "/run.yaml:2",
        "/run.yaml:3",
        "/run.yaml:5",
        "command line",
    }


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.lrr=1", "command line: unknown key train.lrr; did you mean train.lr?"),
        ("train.lr", "command line: expected key=value"),
        ("=3", "command line: expected key=value"),
        ("train..lr=3", "command line: expected key=value"),
        ("train.lr=[1", "command line: train.lr:1: not YAML"),
        ("train.lr=", "command line: train.lr: should be a valid number, not None"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, word, expected):
    assert expected in complaint(tmp_path, "", word)


def test_overrides_win_and_the_last_one_wins(tmp_path):
    config = load(tmp_path, "train:\n  lr: 0.1\n", "train.lr=0.2", "train.lr=0.3")
    assert config.train.lr == 0.3


def test_a_child_overrides_its_parent(tmp_path):
    (tmp_path / "parent.yaml").write_text(
        "model:\n  activation: {name: leaky_relu, negative_slope: 0.2}\n"
        "train:\n  lr: 0.5\n  epochs: 7\n"
    )
    config = load(
        tmp_path, "extends: parent.yaml\nmodel:\n  activation: relu\ntrain:\n  lr: 0.25\n"
    )
    assert (config.train.lr, config.train.epochs, config.model.activation) == (0.25, 7, "relu")


def test_an_activation_with_parameters_replaces_the_parents(tmp_path):
    (tmp_path / "parent.yaml").write_text("model:\n  activation: {name: elu, alpha: 0.5}\n")
    config = load(tmp_path, "extends: parent.yaml\nmodel: {activation: {name: swish}}")
    activation = config.model.activation
    assert activation.name == "swish"
    assert not activation.model_extra


def test_a_mistake_in_the_parent_names_the_parent(tmp_path):
    (tmp_path / "parent.yaml").write_text("train:\n\n  lr: no\n")
    assert "parent.yaml:3: train.lr" in complaint(tmp_path, "extends: parent.yaml")


def test_extends_finds_the_published_configs(tmp_path):
    config = load(tmp_path, "extends: yolov4-pacsp-s-mish.yaml\ntrain:\n  epochs: 2\n")
    assert (config.model.arch, config.train.epochs) == ("yolov4-pacsp-s", 2)


def test_a_data_set_beside_the_config_is_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("root: x\n")
    config = load(tmp_path, "data:\n  dataset: mine.yaml\n")
    monkeypatch.chdir("/")
    assert find_file(config.data.dataset, "data") == tmp_path / "mine.yaml"


def test_data_argument(tmp_path):
    (tmp_path / "mine.yaml").write_text("root: x\n")
    config = load_config("yolov4-pacsp-mish", data=str(tmp_path / "mine.yaml"))
    assert config.data.dataset == str(tmp_path / "mine.yaml")
    assert load_config("yolov4-pacsp-mish", data="digits").data.dataset == "digits.yaml"


def test_a_missing_config_names_the_nearest():
    with pytest.raises(UserError, match=r"did you mean yolov4-pacsp-mish\.yaml\?"):
        load_config("yolov4-pacsp-msh.yaml")


def test_not_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"x\.yaml"):
        load_config(str(tmp_path / "x.yaml"))


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().train.lr = 3.0
