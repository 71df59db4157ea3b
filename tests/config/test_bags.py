import pytest

from detector.build import build_bag, build_train_sizes
from detector.config import Config, config_from_dict, config_to_dict, dump_config, load_config
from detector.config.bags import BAGS
from detector.data import Bag
from detector.errors import UserError


def load(tmp_path, text, *overrides, name="run.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return load_config(str(path), overrides)


def test_the_default_is_the_bag_mosaic(tmp_path):
    assert load(tmp_path, "bag: mosaic") == Config() == load(tmp_path, "")
    bag = build_bag(Config(), mirrors=True)
    assert bag == Bag(
        mosaic=1.0, scale=0.9, translate=0.1, hsv_h=0.015, hsv_s=0.7, hsv_v=0.4, flip_lr=0.5
    )


def test_none_switches_everything_off(tmp_path):
    config = load(tmp_path, "bag: none")
    assert build_bag(config, mirrors=True) == Bag()
    assert build_train_sizes(config) == []
    assert config.loss.label_smoothing == 0


def test_yolov4_sets_augmentations_and_label_smoothing(tmp_path):
    config, usual = load(tmp_path, "bag: yolov4"), Config()
    assert (config.bag.cutmix, config.bag.multi_scale, config.loss.label_smoothing) == (
        0.5,
        1.4,
        0.1,
    )
    assert (config.bag.dropblock, config.bag.sat) == (0.1, 0.5)
    assert config.bag.mosaic == usual.bag.mosaic
    assert config.train == usual.train
    assert build_train_sizes(config)[:2] == [480, 512]
    assert build_train_sizes(config)[-1] == 896


@pytest.mark.parametrize("name", BAGS)
def test_every_bag_can_be_written_as_a_word_or_a_section_and_round_trips(name, tmp_path):
    config = load(tmp_path, f"bag: {name}")
    assert config == load(tmp_path, f"bag: {{preset: {name}}}")
    assert config == load(tmp_path, "", f"bag={name}") == load(tmp_path, "", f"bag.preset={name}")
    assert config == load(tmp_path, dump_config(config))
    assert config == config_from_dict(config_to_dict(config), "memory")
    sections = {section for bag in BAGS.values() for section in bag} - {"bag"}
    assert sections <= BAGS[name].keys(), "what one bag sets elsewhere, all have to"


@pytest.mark.parametrize("over", BAGS)
@pytest.mark.parametrize("under", BAGS)
def test_any_bag_can_override_any_other(over, under, tmp_path):
    expected = load(tmp_path, f"bag: {over}")
    resolved = load(tmp_path, f"bag: {under}")
    assert load(tmp_path, dump_config(resolved), f"bag={over}") == expected
    (tmp_path / "parent.yaml").write_text(f"bag: {under}\n")
    assert load(tmp_path, f"extends: parent.yaml\nbag: {over}\n") == expected


def test_single_keys_win_over_the_name(tmp_path):
    config = load(tmp_path, "bag: {preset: yolov4, mixup: 0.1}\nloss: {label_smoothing: 0.05}")
    assert (config.bag.mixup, config.bag.cutmix, config.loss.label_smoothing) == (0.1, 0.5, 0.05)
    config = load(tmp_path, "bag: yolov4", "bag.mosaic=0.5", "loss.label_smoothing=0.0")
    assert (config.bag.mosaic, config.bag.cutmix, config.loss.label_smoothing) == (0.5, 0.5, 0.0)
    assert load(tmp_path, "", "bag=none", "bag.flip_lr=0.5").bag.flip_lr == 0.5


def test_a_child_changes_keys_of_its_parents_bag_or_names_another(tmp_path):
    (tmp_path / "parent.yaml").write_text("bag: {preset: yolov4, degrees: 5.0}\n")
    child = load(tmp_path, "extends: parent.yaml\nbag: {mixup: 0.2}\n")
    assert (child.bag.degrees, child.bag.cutmix, child.bag.mixup) == (5.0, 0.5, 0.2)
    child = load(tmp_path, "extends: parent.yaml\nbag: {preset: none, mixup: 0.2}\n")
    assert (child.bag.degrees, child.bag.cutmix, child.bag.mixup) == (0.0, 0.0, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "bag: yolo4",
            "run.yaml:1: bag.preset: should be 'none', 'mosaic', 'yolov4', 'cifar', ",
        ),
        ("bag: 5", "run.yaml:1: bag: expected a section with keys, not 5"),
        ("bag: {preset: [a]}", "run.yaml:1: bag.preset: should be 'none'"),
        ("bag: yolov4\nloss: 3", "run.yaml:2: loss: expected a section with keys, not 3"),
        ("bag: {mixups: 1}", "run.yaml:1: unknown key bag.mixups; did you mean bag.mixup?"),
        ("bag: {multi_scale: 0.5}", "bag.multi_scale: should be greater than or equal to 1"),
        ("bag:\n  albumentations: [{p: 1}]", "bag.albumentations.0.name: this key is missing"),
        ("data: {sampling: often}", "data.sampling: should be 'none', 'repeat_factor' or"),
    ],
)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_mistake_on_the_command_line_is_located_there(tmp_path):
    for word in ("bag=yolo4", "bag=5", "bag.preset=x"):
        with pytest.raises(UserError, match=r"^command line: bag"):
            load(tmp_path, "bag: {mosaic: 0.5}", word)


def test_transforms_reach_the_bag_with_their_arguments(tmp_path):
    config = load(
        tmp_path,
        "bag:\n  albumentations:\n    - {name: HorizontalFlip, p: 0.2}\n    - {name: Blur}\n",
    )
    extra = build_bag(config, mirrors=True).extra
    assert [type(each).__name__ for each in extra.chain.transforms] == ["HorizontalFlip", "Blur"]
    assert extra.chain.transforms[0].p == 0.2
