import pytest

from detector.errors import UserError
from detector.study.plan import (
    Arm,
    Study,
    load_study,
    make_request,
    open_study,
    parse_arm,
    parse_variations,
    require_arms,
    take_shard,
)

ARMS = (Arm("mish", ("model.activation=mish",)), Arm("relu", ("model.activation=relu",)))


def make_study(**changes) -> Study:
    values = {"cfg": "yolov4-pacsp-n-mish", "arms": ARMS, "seeds": (0, 1, 2), "baseline": "mish"}
    return Study(**{**values, **changes})


def test_a_grid():
    arms = parse_variations(["bag=none,mosaic", "model.activation=mish,relu"])
    assert [arm.name for arm in arms] == ["none+mish", "none+relu", "mosaic+mish", "mosaic+relu"]
    assert arms[1].words == ("bag=none", "model.activation=relu")


def test_commas_in_brackets_belong_to_a_value():
    arms = parse_variations(["model.activation=mish,{name: leaky_relu, slope: 0.2},relu"])
    assert [arm.words[0].partition("=")[2] for arm in arms] == [
        "mish",
        "{name: leaky_relu, slope: 0.2}",
        "relu",
    ]
    assert arms[1].name == "name-leaky_relu-slope-0.2"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["model.activation"], "expected key=value,value"),
        (["train.lr=0.1,,0.2"], "expected key=value,value"),
        (["train.lr=0.1,0.1"], "a value occurs twice"),
        (["train.lr=0.1,0.2", "train.lr=0.3"], "a key occurs twice"),
    ],
)
def test_variations_that_are_refused(texts, expected):
    with pytest.raises(UserError, match=expected):
        parse_variations(texts)


def test_an_arm_of_several_words():
    assert parse_arm("long: train.lr=0.1 bag=none") == Arm("long", ("train.lr=0.1", "bag=none"))
    assert parse_arm("default:") == Arm("default", ())
    for text in ("train.lr=0.1", "a/b: x=1", "a: word", ": x=1"):
        with pytest.raises(UserError, match="--arm"):
            parse_arm(text)


def test_arms_that_are_refused():
    assert require_arms(ARMS, None) == "mish"
    with pytest.raises(UserError, match="two arms or more"):
        require_arms(ARMS[:1], None)
    with pytest.raises(UserError, match="two arms have the name 'mish'"):
        require_arms((*ARMS, ARMS[0]), None)
    with pytest.raises(UserError, match="no such arm; did you mean relu"):
        require_arms(ARMS, "rela")


def test_runs_come_pair_by_pair():
    names = [run.name for run in make_study(seeds=(0, 7)).list_runs()]
    assert names == ["mish-seed0", "relu-seed0", "mish-seed7", "relu-seed7"]
    folds = [run.name for run in make_study(seeds=(4,), folds=2).list_runs()]
    assert folds == ["mish-seed4-fold0", "relu-seed4-fold0", "mish-seed4-fold1", "relu-seed4-fold1"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_shards_are_a_partition_and_keep_pairs_together(count):
    runs = make_study().list_runs()
    shards = [take_shard(runs, f"{i}/{count}", 2) for i in range(1, count + 1)]
    assert sorted(run.name for shard in shards for run in shard) == sorted(run.name for run in runs)
    if count <= 3:
        assert all(len({run.seed for run in shard}) * 2 == len(shard) for shard in shards)
    else:
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_a_shard_that_is_none(text):
    with pytest.raises(UserError, match="expected i/n"):
        take_shard([], text, 2)


def test_the_request_of_a_run(tmp_path):
    study = make_study(words=("train.epochs=2",), data="digits.yaml")
    request = make_request(study, tmp_path, study.list_runs()[1])
    assert request.folder == tmp_path / "runs" / "relu-seed0"
    config = request.load_config()
    assert (config.model.activation, config.train.seed) == ("relu", 0)
    assert config.train.epochs == 2


def test_a_study_is_written_read_and_extended(tmp_path):
    study = make_study(words=("train.epochs=2",))
    open_study(tmp_path, study)
    assert load_study(tmp_path) == study
    more = make_study(words=("train.epochs=2",), seeds=(0, 1, 2, 3))
    open_study(tmp_path, more)
    assert load_study(tmp_path) == more


def test_another_study_in_the_folder_is_refused(tmp_path):
    open_study(tmp_path, make_study())
    with pytest.raises(UserError, match="words: ") as error:
        open_study(tmp_path, make_study(words=("train.epochs=3",)))
    assert "give the same settings, or another --out" in str(error.value)
    other = (ARMS[0], Arm("relu", ("model.activation=relu", "train.lr=0.1")))
    with pytest.raises(UserError, match=r"arm relu: model\.activation=relu, now"):
        open_study(tmp_path, make_study(arms=other))


def test_a_damaged_description(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_study(tmp_path)
