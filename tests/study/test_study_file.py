"""Studies described in a YAML: those of the paper, and what the command line changes."""

import json
from pathlib import Path

import pytest

from detector.commands.ablate import load_configs, make_study, parse_arguments
from detector.config import load_yaml_as
from detector.errors import UserError
from detector.study.answer import find_answer, list_comparisons
from detector.study.collect import RunResult
from detector.study.page import make_page
from detector.study.plan import Arm, Study, load_study, open_study
from detector.study.published_values import PublishedValue
from detector.study.study_file import StudyFile, read_study_file
from detector.study.text import format_markdown, format_text, make_published_table

PAPER = sorted((Path(__file__).parents[2] / "configs" / "paper").glob("*.yaml"))
TWELVE = [
    "mish",
    "swish",
    "gelu",
    "relu",
    "elu",
    "selu",
    "softplus",
    "srelu",
    "isru",
    "tanh",
    "rrelu",
    "leaky_relu",
]


@pytest.fixture
def parse(monkeypatch):
    """The study that the words of a command line make."""

    def study(*words):
        monkeypatch.setattr("sys.argv", ["ablate", *map(str, words)])
        return make_study(parse_arguments())

    return study


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_paper_s_studies_can_be_planned(path, parse, tmp_path, monkeypatch):
    """Every arm is a valid config; xception and inception_resnet_v2 need timm, which may be missing."""
    monkeypatch.setattr("detector.study.plan.build_network", lambda *_, **__: None)
    study = parse("--study", path)
    configs = load_configs(study, tmp_path)
    assert len(configs) == len(study.arms) >= 4
    metrics = {config.model.arch for config in configs.values()}
    assert len(metrics) in (1, 11)


def test_table_1_has_twelve_activations_and_23_seeds(parse):
    study = parse("--study", "paper/table1.yaml")
    assert [arm.name for arm in study.arms] == TWELVE
    assert study.seeds == tuple(range(23))
    assert study.baseline == "mish"
    assert "model.arch=squeezenet1_1" in study.words


def test_the_command_line_wins(parse):
    words = ("--data", "digits-cls.yaml", "--seeds", 2, "--vary", "model.activation=relu,mish")
    study = parse("--study", "paper/figure2.yaml", *words, "train.epochs=1")
    assert study.data == "digits-cls.yaml"
    assert study.seeds == (0, 1)
    assert [arm.name for arm in study.arms] == ["relu", "mish"]
    assert study.words[-2:] == ("train.epochs=50", "train.epochs=1")


def test_within_compares_arms_of_the_same_value(parse):
    study = parse("--study", "paper/figure5c.yaml")
    expected = [
        (f"{init}+{other}", f"{init}+mish")
        for init in ("glorot_uniform", "lecun_normal", "he_uniform")
        for other in ("swish", "relu")
    ]
    assert list(list_comparisons(study, all_pairs=False)) == expected
    pairs = list(list_comparisons(parse("--study", "paper/figure5b.yaml"), all_pairs=False))
    assert ("noise0.3-relu", "noise0.3-mish") in pairs
    assert len(pairs) == 12
    pairs = list(list_comparisons(parse("--study", "paper/table3.yaml"), all_pairs=False))
    assert pairs == [
        ("darknet+mish", "darknet+leaky_relu"),
        ("darknet_mix+mish", "darknet_mix+leaky_relu"),
    ]
    with pytest.raises(UserError, match=r"--within data.size: expected a key of the arms"):
        parse("--study", "paper/figure5c.yaml", "--within", "data.size")


def test_published_values_are_printed_beside_ours(parse, tmp_path):
    study = parse("--study", "paper/table3.yaml")
    open_study(tmp_path, study)
    assert load_study(tmp_path) == study
    row = {"epoch": 1.0, "seconds": 2.0, "top1": 0.7612, "top5": 0.93, "loss": 1.0}
    results = [RunResult(run, [row], finished=True) for run in study.list_runs()]
    answer = find_answer(study, results)
    assert make_published_table(answer) == [
        ["arm", "metric", "ours", "sd", "published", "sd"],
        ["darknet+leaky_relu", "top-1", "76.12", "none", "77.20", "none"],
        ["darknet+leaky_relu", "top-5", "93.00", "none", "93.60", "none"],
        ["darknet_mix+mish", "top-1", "76.12", "none", "78.70", "none"],
        ["darknet_mix+mish", "top-5", "93.00", "none", "94.80", "none"],
    ]
    for text in (format_text(answer), format_markdown(answer, "command")):
        assert "Published (CrossStagePartialNetworks, README" in text
    without = parse("--study", "paper/figure2.yaml")
    assert "Published" not in format_text(find_answer(without, []))


def test_a_published_deviation(parse, tmp_path):
    study = parse("--study", "paper/table1.yaml", "--vary", "model.activation=relu,mish")
    assert study.published == (
        PublishedValue("mish", "top1", 0.8748, 0.003967),
        PublishedValue("relu", "top1", 0.8666, 0.00584),
    )
    open_study(tmp_path, study)
    assert load_study(tmp_path) == study
    rows = [{"epoch": 1.0, "seconds": 2.0, "top1": 0.87, "top5": 0.99, "loss": 1.0}]
    results = [RunResult(run, rows, finished=True) for run in study.list_runs()]
    answer = find_answer(study, results)
    assert make_published_table(answer)[1] == ["mish", "top-1", "87.00", "0.00", "87.48", "0.40"]
    assert "23 runs each" in make_page(answer, "command")


def test_published_values_of_older_folders(tmp_path):
    arms = (Arm("a", ("x=1",)), Arm("b", ("x=2",)))
    values = (PublishedValue("a", "top1", 0.5),)
    study = Study("c", arms, (0,), "a", published=values, source="s")
    open_study(tmp_path, study)
    path = tmp_path / "study.json"
    content = json.loads(path.read_text())
    content["published"] = [["a", "top1", 0.5]]
    path.write_text(json.dumps(content))
    assert load_study(tmp_path) == study


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "digits-cls.yaml"),
        ("data.dataset=digits-cls.yaml",),
        ("--cfg", "csdarknet53-mish-cls.yaml"),
        ("--vary", "model.activation=gelu,arctan_softplus", "--arm", "mish: model.depth=3"),
    ],
    ids=["data", "word", "config", "arms"],
)
def test_values_of_other_data_or_arms_are_left_out(words, parse):
    """gelu alone is in the table with this setting; mish with another."""
    study = parse("--study", "paper/table1.yaml", *words)
    assert [value.arm for value in study.published] == (["gelu"] if "--arm" in words else [])
    text = format_text(find_answer(study, []))
    assert ("(not shown: of other data" in text) == (not study.published)
    assert "SqueezeNet on CIFAR-10" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cfg: a\nvari: [b]\n", r"study.yaml:2: unknown key vari; did you mean vary\?"),
        ("data: a\n", r"study.yaml:1: cfg: this key is missing"),
        (
            "cfg: a\npublished: {source: x, values: {a: {top1: {mean: 1.0}}}}\n",
            r"published.values.a.top1.sd: this key is missing",
        ),
        (
            "cfg: a\npublished: {source: x, values: {a: {top1: high}}}\n",
            r"published.values.a.top1: ",
        ),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_yaml_as(StudyFile, path)


def test_a_published_value_of_no_arm(parse, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "cfg: cnn6-mish-cls\nvary: ['model.activation=mish,relu']\n"
        "published: {source: x, values: {swish: {top1: 0.5}}}\n"
    )
    with pytest.raises(UserError, match="published: swish: top1: expected an arm of the study"):
        parse("--study", path)
    with pytest.raises(UserError, match=r"no such file, here or in configs/"):
        read_study_file("paper/table9.yaml")
