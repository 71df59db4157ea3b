import pytest

from detector.config import load_config
from detector.errors import UserError
from detector.study.search_space import Range, find_defaults, format_words, read_space

SPACE = """
train.lr: {low: 0.001, high: 0.1, log: true}
train.warmup_epochs: {low: 1, high: 5}
bag.mosaic: {low: 0.0, high: 1.0, step: 0.25}
model.activation: {choices: [mish, relu]}
train.sync_bn: {choices: [true, false]}
"""


class Lowest:
    """Draws the lowest value, and writes down what it was asked."""

    def __init__(self):
        self.asked = []

    def suggest_float(self, name, low, high, **options):
        self.asked.append((name, "float", low, high, options))
        return low

    def suggest_int(self, name, low, high, **options):
        self.asked.append((name, "int", low, high, options))
        return low

    def suggest_categorical(self, name, choices):
        self.asked.append((name, choices))
        return choices[0]


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "ranges.yaml"
    path.write_text(SPACE)
    return read_space(path)


def test_what_is_drawn(space):
    trial = Lowest()
    values = {each.key: each.draw(trial) for each in space}
    assert trial.asked == [
        ("train.lr", "float", 0.001, 0.1, {"step": None, "log": True}),
        ("train.warmup_epochs", "int", 1, 5, {"step": 1, "log": False}),
        ("bag.mosaic", "float", 0.0, 1.0, {"step": 0.25, "log": False}),
        ("model.activation", ("mish", "relu")),
        ("train.sync_bn", (True, False)),
    ]
    assert format_words(values) == (
        "train.lr=0.001",
        "train.warmup_epochs=1",
        "bag.mosaic=0.0",
        "model.activation=mish",
        "train.sync_bn=true",
    )


def test_what_a_range_contains():
    steps = Range("x", (), 0.0, 1.0, step=0.1)
    assert steps.contains(0.3)
    assert not steps.contains(0.35)
    whole = Range("x", (), 1, 5)
    assert whole.contains(5)
    assert not whole.contains(2.5)
    assert not whole.contains("auto")
    choices = Range("x", (True, False))
    assert choices.contains(True)
    assert not choices.contains(1)


def test_the_default_settings_as_a_trial(space):
    config = load_config("yolov4-pacsp-n-mish", ["train.lr=0.02", "train.warmup_epochs=3"])
    chosen = [each for each in space if each.key != "bag.mosaic"]
    values = find_defaults(chosen, config)
    assert values is not None
    assert (values["train.lr"], values["train.warmup_epochs"]) == (0.02, 3)
    assert values["model.activation"] == "mish"
    assert find_defaults([Range("train.batch_size", (), 1, 8)], config) is None  # it is auto


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no ranges; expected `train.lr:"),
        ("train.lr: 0.1", r"ranges.yaml:1: train.lr: expected {low: NUMBER"),
        ("train.lr: {low: 1}", "expected {low: NUMBER"),
        (
            "\ntrain.lr: {low: 1, hihg: 2}",
            "ranges.yaml:2: train.lr: unknown 'hihg'; did you mean high",
        ),
        ("train.lr: {low: 2, high: 1}", "low has to be below high"),
        ("train.lr: {low: 0, high: 1, step: 2}", "low has to be below high, and step fit"),
        ("train.lr: {low: 0, high: 1, log: true}", "log needs low > 0"),
        ("train.lr: {low: true, high: 1}", "expected {low: NUMBER"),
        ("train.lr: {low: 1, high: .inf}", "expected {low: NUMBER"),
        ("train.lr: {choices: [1]}", "two or more different"),
        ("train.lr: {choices: [1, 1]}", "two or more different"),
        ("train.lr: {choices: [1, [2]]}", "two or more different plain values"),
        ("train.lr: {choices: [1, 2], low: 3}", "two or more different plain values"),
    ],
)
def test_ranges_that_are_refused(tmp_path, text, expected):
    path = tmp_path / "ranges.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected.replace("{", r"\{")):
        read_space(path)
