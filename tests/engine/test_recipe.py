"""The training options of a config, through `build`, on the small network."""

import copy

import pytest
import torch
from torch import nn

from detector import build
from detector.config import load_config
from detector.engine import Observer
from detector.errors import UserError
from detector.nn import DropBlock2d

SMALL = [
    "data.size=64",
    "data.workers=0",
    "train.batch_size=4",
    "train.nominal_batch=8",
    "train.epochs=3",
    "train.warmup_epochs=0.4",
    "train.warmup_min_steps=0",
    "train.warmup_bias_lr=0.02",
    "train.lr=0.1",
    "train.ema_decay=0.99",
    "train.ema_warmup=20.0",
    "train.precision=fp32",
    "train.device=cpu",
    "train.eval_every=1",
]
EVERYTHING = [
    "bag.dropblock=0.2",
    "bag.dropblock_size=3",
    "bag.sat=0.5",
    "train.lr_groups={backbone: 0.5}",
    "train.freeze=[backbone.stem, backbone.stage1]",
    "train.clip_norm=5.0",
    "train.schedule=one_cycle",
    "train.patience=3",
]
ADAMW = ["train.optimizer=adamw", "train.lr=0.001", "train.warmup_bias_lr=0.0"]


def make(digits_yaml, *words, scores=None):
    config = load_config("yolov4-pacsp-n-mish", [*SMALL, *words], data=str(digits_yaml))
    data, hardware = build.build_data(config), build.build_hardware(config)
    evaluator = build.build_evaluator(config, data.val, hardware)
    trainer = build.build_trainer(config, data, evaluator, hardware)
    values = iter(scores or [])
    trainer.evaluate = lambda model: {"AP": next(values, 0.5), "AP50": 0.0}
    return trainer


class Stop(Exception):
    pass


class StopAt(Observer):
    """Stops after the step that leads to batch `batch` of an epoch."""

    def __init__(self, epoch, batch):
        self.place, self.state = (epoch, batch), None

    def on_step(self, trainer):
        if (trainer.progress.epoch, trainer.progress.batch) == self.place:
            self.state = copy.deepcopy(trainer.state_dict())
            raise Stop


class Epochs(Observer):
    def __init__(self):
        self.seen = []

    def on_epoch(self, trainer, report):
        self.seen.append(report.epoch)


def weights(trainer):
    return [*trainer.model.state_dict().values(), *trainer.ema.state_dict().values()]


@pytest.mark.parametrize(
    "more",
    [
        [],
        [*ADAMW, "train.freeze_epochs=2"],  # it ends after the stop
        ["train.freeze_epochs=1", "train.precision=bf16", "data.workers=2"],  # before
    ],
    ids=["sgd", "adamw", "bf16"],
)
def test_a_run_with_everything_on_resumes_to_the_same_bits(digits_yaml, more):
    words = [*EVERYTHING, *more]
    whole = make(digits_yaml, *words)
    whole.run()
    stop, first = StopAt(1, 2), make(digits_yaml, *words)  # of three batches
    first.observers = [stop]
    with pytest.raises(Stop):
        first.run()
    resumed = make(digits_yaml, *words)
    torch.manual_seed(99)
    resumed.load_state_dict(stop.state)
    resumed.run()
    assert all(map(torch.equal, weights(whole), weights(resumed)))
    assert whole.progress.best_ap == resumed.progress.best_ap
    assert whole.progress.stale == resumed.progress.stale == 2


@pytest.mark.parametrize(
    "word", ["bag.dropblock=0.3", "bag.sat=1.0", "train.clip_norm=0.01", "train.schedule=constant"]
)
def test_every_switch_changes_training(digits_yaml, word):
    plain, other = make(digits_yaml), make(digits_yaml, word)
    plain.run(), other.run()
    assert not all(map(torch.equal, weights(plain), weights(other)))


def test_frozen_parts_do_not_change(digits_yaml):
    trainer = make(digits_yaml, "train.freeze=[backbone]")
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.run()
    for name, value in trainer.model.state_dict().items():
        frozen = name.startswith("backbone.") or name == "anchors"
        assert torch.equal(value, before[name]) == frozen, name
    for name, value in trainer.ema.module.state_dict().items():
        assert not name.startswith("backbone.") or torch.equal(value, before[name])
    assert str(trainer.options.frozen) == (
        f"frozen: {sum(p.numel() for p in trainer.model.backbone.parameters()):,} of "
        f"{sum(p.numel() for p in trainer.model.parameters()):,} parameters and the statistics of "
        f"{sum(isinstance(m, nn.BatchNorm2d) for m in trainer.model.backbone.modules())} "
        f"BatchNorms"
    )


class BackboneWeights(Observer):
    """The backbone's weights after each epoch."""

    def __init__(self):
        self.after = []

    def on_epoch(self, trainer, report):
        self.after.append(copy.deepcopy(trainer.model.backbone.state_dict()))


def test_frozen_parts_are_trained_after_their_epochs(digits_yaml):
    trainer = make(digits_yaml, "train.freeze=[backbone]", "train.freeze_epochs=1")
    before, weights = copy.deepcopy(trainer.model.backbone.state_dict()), BackboneWeights()
    trainer.observers = [weights]
    trainer.run()
    for name, value in before.items():
        assert torch.equal(weights.after[0][name], value), name
        assert not torch.equal(weights.after[1][name], value), name
    assert str(trainer.options.frozen).endswith("BatchNorms, in the first epoch")


def test_the_gradient_of_a_step_is_clipped(digits_yaml):
    trainer, norms = make(digits_yaml, "train.clip_norm=0.125", "train.epochs=1"), []

    def note(optimizer, args, kwargs):
        grads = [p.grad for g in optimizer.param_groups for p in g["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

    trainer.optimizer.register_step_pre_hook(note)
    trainer.run()
    assert norms == pytest.approx([0.125] * len(norms), rel=1e-3)


@pytest.mark.parametrize("words", [["train.clip_norm=0.125"], ["bag.sat=1.0"]], ids=["clip", "sat"])
def test_a_scaled_loss_trains_equally(digits_yaml, words):
    """As with float16: the norm is that of the unscaled gradient, since the scale is a power of two."""
    plain, scaled = make(digits_yaml, *words), make(digits_yaml, *words)
    scaled.step.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain.run(), scaled.run()
    assert scaled.scaler.get_scale() == 1024.0
    for a, b in zip(weights(plain), weights(scaled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_patience_ends_a_run_and_a_resumed_one(digits_yaml):
    words = ["train.epochs=6", "train.patience=2"]
    trainer, seen = make(digits_yaml, *words, scores=[0.1, 0.3, 0.2, 0.3, 0.4]), Epochs()
    trainer.observers = [seen]
    trainer.run()
    assert seen.seen == [0, 1, 2, 3]  # 0.3 again is not better
    resumed, more = make(digits_yaml, *words), Epochs()
    resumed.observers = [more]
    resumed.load_state_dict(trainer.state_dict())
    resumed.run()
    assert not more.seen


def test_a_better_score_resets_the_patience(digits_yaml):
    words = ["train.epochs=5", "train.patience=2"]
    trainer = make(digits_yaml, *words, scores=[0.1, 0.05, 0.2, 0.1, 0.3])
    trainer.run()
    assert trainer.progress.epoch == 5


def test_self_adversarial_training_waits_for_the_warm_up(digits_yaml):
    trainer, asked = make(digits_yaml, "bag.sat=1.0", "train.warmup_epochs=1.0"), []
    perturb = trainer.options.adversary.perturb

    def note(*args, progress, **options):
        asked.append(progress)
        return perturb(*args, progress=progress, **options)

    trainer.options.adversary.perturb = note
    trainer.run()
    batches = len(trainer.loader)
    assert asked == [n / (3 * batches) for n in range(batches, 3 * batches)]


def test_dropblock_is_in_the_neck_and_not_in_the_state_dict(digits_yaml):
    plain, other = make(digits_yaml), make(digits_yaml, "bag.dropblock=0.1")
    assert isinstance(other.model.neck.drop, DropBlock2d)
    assert list(plain.model.state_dict()) == list(other.model.state_dict())
    parts = [
        [type(m) for part in trainer.model.list_parts("pacsp") for m in part.modules()]
        for trainer in (plain, other)
    ]
    assert parts[0] == parts[1]
    x = torch.rand(1, 3, 64, 64)
    other.model.neck.drop.advance(1.0)
    other.model.load_state_dict(plain.model.state_dict())
    for a, b in zip(plain.model.eval()(x), other.model.eval()(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("arch", ["yolov4-pacsp-n", "yolov4", "csdarknet53-yolov3", "yolov4-tiny"])
def test_every_map_of_every_neck_passes_through_dropblock(arch):
    """With a DropBlock that returns zeros, the heads see only zeros."""

    class Nothing(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    config = load_config("yolov4-pacsp-n-mish", [f"model.arch={arch}", "model.anchors=null"])
    with torch.device("meta"):
        model = build.build_model(config.model, 3)
    channels = model.backbone.out_channels
    model.neck.to_empty(device="cpu")
    model.neck.drop = Nothing()
    features = tuple(
        torch.rand(1, c, 2**n, 2**n) for n, c in zip((2, 1, 0), channels, strict=False)
    )
    assert all(not level.any() for level in model.neck.eval()(features))


def test_adamw_has_its_own_defaults():
    plain = load_config("yolov4-pacsp-mish", ["train.optimizer=adamw"]).train
    assert (plain.lr, plain.weight_decay, plain.warmup_bias_lr) == (0.001, 0.05, 0.0)
    explicit = load_config("yolov4-pacsp-mish", ["train.optimizer=adamw", "train.lr=0.002"]).train
    assert (explicit.lr, explicit.weight_decay) == (0.002, 0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train.optimizer=adamw"],
            r"lr 0\.1 and warmup_bias_lr 0\.02 are too large for adamw; try lr=0\.001",
        ),
        (["train.optimizer=adm"], "unknown optimizer 'adm'"),
        (["train.schedule=cosin"], "unknown schedule 'cosin'; did you mean cosine"),
        (["train.schedule={name: step, at: [1]}"], "schedule step: no parameter 'at'"),
        (["train.schedule=3"], r"train\.schedule: expected a section with keys, not 3"),
        (
            ["train.freeze=[bakbone]"],
            r"train\.freeze: no part is named 'bakbone'; did you mean backbone",
        ),
        (["train.freeze=[backbone, neck, head]"], "nothing is left to train"),
        (
            ["train.lr_groups={nek: 0.1}"],
            r"train\.lr_groups: no part is named 'nek'; did you mean neck",
        ),
        (["train.lr_groups={neck: 0}"], r"train\.lr_groups\.neck: .*greater than 0"),
        (["bag.dropblock=1.0"], r"bag\.dropblock: .*less than 1"),
    ],
)
def test_mistakes_end_in_one_line(digits_yaml, words, message):
    with pytest.raises(UserError, match=message) as caught:
        make(digits_yaml, *words)
    assert "\n" not in str(caught.value)
