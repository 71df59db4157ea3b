"""The recipe that follows from the size of a run: `recipe: auto`."""

import pytest

from detector.build import resolve_recipe
from detector.build.recipe import RunSize, choose_eval_every, derive_recipe
from detector.config import (
    RECIPE_KEYS,
    Config,
    changed_keys,
    config_from_dict,
    config_to_dict,
    load_config,
    replace_values,
)

COCO = (118_287, 5_000)


def resolve(images, val_images, *words):
    config = config_from_dict({}, "test", list(words))
    resolved, lines = resolve_recipe(config, images, val_images)
    return resolved, lines


def recipe_of(config):
    sections = (key.split(".") for key in RECIPE_KEYS)
    return {
        key: getattr(getattr(config, key.split(".")[0]), name)
        for key, (_, name) in zip(RECIPE_KEYS, sections, strict=True)
    }


def test_at_cocos_size_every_value_is_the_published_one():
    resolved, lines = resolve(*COCO)
    assert recipe_of(resolved) == recipe_of(Config())
    assert lines == [
        "recipe: 118287 images x 300 epochs = 554471 steps of 64; sgd, lr 0.01; warm-up 22179 batches; "
        "EMA over 10000 steps; mosaic until the end; evaluation every epoch"
    ]


# (images, validation images, epochs), (nominal batch, optimizer, warm-up batches, EMA steps, epochs
# without mosaic, epochs between evaluations)
TABLE = [
    ((118_287, 5_000, 300), (64, "sgd", 22_179, 10_000, 0, 1)),
    ((118_287, 5_000, 30), (64, "sgd", 22_179, 6_931, 0, 1)),
    ((16_551, 4_952, 300), (64, "sgd", 3_105, 9_697, 0, 1)),
    ((16_551, 4_952, 20), (64, "sgd", 2_070, 647, 3, 1)),
    ((1_200, 240, 8), (8, "sgd", 120, 150, 1, 1)),
    ((292, 72, 40), (8, "sgd", 148, 183, 6, 1)),
    ((292, 72, 300), (32, "sgd", 570, 342, 45, 1)),
    ((160, 40, 40), (8, "sgd", 80, 100, 6, 1)),
    ((100, 5_000, 100), (8, "sgd", 130, 156, 15, 10)),
    ((100_000, 1, 100), (64, "sgd", 18_750, 10_000, 0, 1)),
    ((1, 1, 1), (8, "sgd", 0, 1, 0, 1)),
    ((1, 1, 40), (8, "sgd", 4, 1, 6, 3)),
]


@pytest.mark.parametrize(("size", "expected"), TABLE, ids=[str(size) for size, _ in TABLE])
def test_values_by_the_size_of_a_run(size, expected):
    images, val_images, epochs = size
    config, _ = resolve(images, val_images, f"train.epochs={epochs}")
    train, short = config.train, images * epochs < 20_000 * 64
    batches = -(-images // train.batch_size)
    warmup = max(round(train.warmup_epochs * batches), train.warmup_min_steps)
    assert (
        train.nominal_batch,
        train.optimizer,
        warmup,
        round(1 / (1 - train.ema_decay)),
        config.bag.mosaic_off_epochs,
        train.eval_every,
    ) == expected
    assert train.batch_size <= train.nominal_batch
    assert train.lr * train.nominal_batch == pytest.approx((0.02 if short else 0.01) * 64)
    assert (train.lr_final, config.loss.cls_factor) == ((0.05, 8.0) if short else (0.1, 1.0))
    loss = config.loss
    assert (loss.box, loss.obj_target) == ((0.1, "iou") if short else (0.05, "box_loss"))


@pytest.mark.parametrize("epochs", [1, 10, 100, 1000])
def test_longer_runs_never_have_shorter_warm_ups_averages_or_smaller_batches(epochs):
    keys = ("train.nominal_batch", "train.ema_warmup")
    recipes = [derive_recipe(RunSize(n, n, epochs), {}, 16) for n in (1, 50, 500, 5000, 50_000)]
    for key in keys:
        values = [recipe[key] for recipe in recipes]
        assert values == sorted(values)


def test_given_values_stay_and_the_others_follow():
    config, _ = resolve(300, 70, "train.epochs=40", "train.nominal_batch=64", "train.lr_final=0.5")
    assert (config.train.nominal_batch, config.train.lr_final) == (64, 0.5)
    assert config.train.batch_size == 16
    assert round(1 / (1 - config.train.ema_decay)) == 23  # an eighth of 187 steps
    config, _ = resolve(300, 70, "train.epochs=40", "train.optimizer=adamw")
    train = config.train
    assert (train.lr, train.weight_decay, train.warmup_bias_lr) == (0.001, 0.05, 0.0)
    config, _ = resolve(300, 70, "train.epochs=40", "train.lr=0.05")
    train = config.train
    assert (train.optimizer, train.lr, train.warmup_bias_lr) == ("sgd", 0.05, 0.05)
    config, _ = resolve(300, 70, "train.epochs=40", "train.batch_size=32")
    assert (config.train.batch_size, config.train.nominal_batch) == (32, 8)


@pytest.mark.parametrize(
    ("objects", "lr"), [(0.0, 0.0114), (0.5, 0.0114), (1.75, 0.04), (7.0, 0.16), (100.0, 0.16)]
)
def test_fewer_objects_per_image_lower_the_learning_rate(objects, lr):
    config = config_from_dict({}, "test", ["train.epochs=40"])
    resolved, _ = resolve_recipe(config, 160, 40, objects=objects)
    assert resolved.train.lr == lr
    box, target = (0.1, "iou") if objects >= 7 else (0.05, "box_loss")
    assert (resolved.loss.box, resolved.loss.obj_target) == (box, target)


def test_a_run_of_few_steps_is_told_how_many_epochs_are_enough():
    _, lines = resolve(100, 20, "train.epochs=8")
    assert lines[1:] == [
        "few steps: a run from initial weights needs hundreds to learn its classes and boxes; "
        "train.epochs=40 makes 500, or start from trained weights with --weights"
    ]
    assert len(resolve(100, 20, "train.epochs=40")[1]) == 1
    config = config_from_dict({}, "test", ["train.epochs=8"])
    assert len(resolve_recipe(config, 100, 20, pretrained=True)[1]) == 1


@pytest.mark.parametrize(("objects", "lr"), [(1.1, 0.0503), (1.75, 0.08), (50.0, 0.08)])
def test_trained_weights_double_the_learning_rate_up_to_the_published_step(objects, lr):
    config = config_from_dict({}, "test", ["train.epochs=40"])
    resolved, lines = resolve_recipe(config, 160, 40, objects=objects, pretrained=True)
    assert resolved.train.lr == lr
    assert f"sgd, lr {lr} (from trained weights); backbone frozen in the first 5 epo" in lines[0]


@pytest.mark.parametrize(
    ("words", "freeze", "epochs"),
    [
        ([], ("backbone",), 5),
        (["train.epochs=4"], (), 0),
        (["train.epochs=8"], ("backbone",), 1),
        (["train.epochs=20000"], (), 0),  # as long as the published recipe
        (["train.freeze_epochs=0"], (), 0),
        (["train.freeze_epochs=2"], ("backbone",), 2),
        (["train.freeze=[neck]"], ("neck",), 0),
        (["train.freeze=[]"], (), 0),
        (["train.freeze=[neck]", "train.freeze_epochs=3"], ("neck",), 3),
    ],
)
def test_a_trained_backbone_is_frozen_at_first(words, freeze, epochs):
    config = config_from_dict({}, "test", ["train.epochs=40", *words])
    resolved, lines = resolve_recipe(config, 160, 40, pretrained=True)
    assert (resolved.train.freeze, resolved.train.freeze_epochs) == (freeze, epochs)
    assert ("frozen in the first" in lines[0]) == bool(freeze and epochs)


def test_nothing_is_frozen_from_initial_weights_or_in_a_darknet_cfg():
    assert resolve(160, 40, "train.epochs=40")[0].train.freeze == ()
    config = config_from_dict({}, "test", ["train.epochs=40", "model.darknet_cfg='[net]'"])
    assert resolve_recipe(config, 160, 40, pretrained=True)[0].train.freeze == ()


def test_a_section_that_was_changed_still_has_a_recipe():
    """`replace_values` keeps what is not set unset."""
    config = replace_values(
        config_from_dict({}, "test"), {"train.epochs": 40, "model.bn_eps": 1e-3}
    )
    resolved, _ = resolve_recipe(config, 160, 40)
    assert (resolved.train.nominal_batch, resolved.train.epochs) == (8, 40)


def test_the_published_recipe_is_one_word():
    config, lines = resolve(300, 70, "train.epochs=40", "recipe=published")
    assert recipe_of(config) == recipe_of(Config())
    assert not lines


def test_auto_takes_back_the_number_of_a_parent(tmp_path):
    (tmp_path / "parent.yaml").write_text("train:\n  lr: 0.5\n  nominal_batch: 4\n")
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\ntrain:\n  lr: auto\n")
    config = load_config(str(tmp_path / "child.yaml"))
    resolved, _ = resolve_recipe(config, *COCO)
    assert (resolved.train.lr, resolved.train.nominal_batch) == (0.01, 4)


def test_a_resolved_config_is_not_resolved_again():
    resolved, _ = resolve(300, 70, "train.epochs=40")
    written = replace_values(resolved, {"recipe": "resolved"})
    again, lines = resolve_recipe(config_from_dict(config_to_dict(written), "run"), *COCO)
    assert (again, lines) == (written, [])


def test_a_run_has_not_changed_where_it_has_resolved_its_recipe():
    wanted = config_from_dict({}, "test", ["train.epochs=40", "train.lr=0.001"])
    resolved, _ = resolve_recipe(wanted, 300, 70)
    assert not changed_keys(resolved, wanted)
    other = config_from_dict({}, "test", ["train.epochs=40", "train.lr=0.002"])
    assert changed_keys(resolved, other) == ["train.lr: 0.001, now 0.002"]
    published = config_from_dict({}, "test", ["train.epochs=40", "recipe=published"])
    assert changed_keys(resolved, published)
    written = replace_values(resolved, {"recipe": "resolved"})
    assert not changed_keys(written, wanted)


def test_evaluations_take_about_a_tenth_of_the_time():
    assert choose_eval_every(RunSize(1000, 300, 100)) == 1
    assert choose_eval_every(RunSize(1000, 3000, 100)) == 10
    assert choose_eval_every(RunSize(1000, 30_000, 100)) == 10  # at least ten in a run
