"""Non-finite steps and steps that run out of memory, on small models."""

import copy
import itertools
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from detector import build
from detector.config import load_config
from detector.data import EpochOrder, TrainLoader
from detector.data.loader import collate
from detector.engine import (
    Console,
    CsvLog,
    EventLog,
    Hardware,
    MemoryFull,
    MemoryProbe,
    ModelEMA,
    Observer,
    ProcessGroup,
    Schedule,
    Stopped,
    Trainer,
    TrainerOptions,
    compute_deterministically,
    divide_nominal_batch,
    find_max_batch_size,
    sgd,
)
from detector.engine.micro_batch import MicroBatch
from detector.engine.out_of_memory import count_whole_batch, split_into_chunks
from detector.errors import UserError, explain
from detector.losses import YOLOLoss
from detector.structures import Batch
from tests.engine.small_trainer import Loader, StopAtStep, batch_of, bits, equal

CPU = Hardware.choose("cpu", "fp32", channels_last=True)
NAN = float("nan")


class Mean:
    """A mean over all pixels of the joined batch; `factors` of its gradient and value, by call."""

    weights = {"a": 2.0, "b": 0.5}  # noqa: RUF012
    counts_follow_predictions = False

    def __init__(self):
        self.calls, self.factors = 0, {}

    def __call__(self, raw, batch, total):
        (raw,) = raw
        count = total(torch.tensor([float(raw.numel())], dtype=torch.float64)).item()
        if not torch.is_grad_enabled():
            return {"a": raw.new_zeros(()), "b": raw.new_zeros(())}
        value, gradient = self.factors.get(self.calls, (1.0, 1.0))
        self.calls += 1
        if raw.requires_grad:
            raw.register_hook(lambda g: g * gradient)
        return {"a": raw.square().sum() / count * value, "b": (raw - 1).abs().sum() / count}


def make(
    norm=True,
    limit=None,
    accumulate=1,
    epochs=2,
    hardware=CPU,
    sizes=(4, 4, 2),
    observers=(),
    **more,
):
    """A trainer; `limit`: images that the memory holds."""
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.Mish(), nn.Conv2d(4, 1, 1))
    model.register_forward_hook(lambda _module, _images, output: [output])
    loader = Loader()
    loader.sizes = sizes
    trainer = Trainer(
        model,
        Mean(),
        sgd(model, lr=0.1, momentum=0.9, weight_decay=1e-3),
        ModelEMA(model, decay=0.9, warmup=3.0),
        schedule=Schedule(len(sizes), epochs, 0.05, 0.1, 0.9, 0, 0.8, 0.1, accumulate),
        loader=loader,
        evaluate=lambda m: {"AP": float(m[0].weight.sum()), "AP50": 0.0},
        hardware=hardware,
        process_group=more.pop("process_group", None),
        options=TrainerOptions(**more),
    )
    trainer.observers = observers

    def full(module, args):
        if limit is not None and module.training and len(args[0]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    model[3].register_forward_pre_hook(full)  # when BatchNorm has seen the images already
    return trainer


class Note(Observer):
    def __init__(self, *names):
        self.names, self.events = names, []

    def on_event(self, trainer, event):
        if event["event"] in self.names:
            self.events.append(event)


@pytest.mark.parametrize("factors", [(NAN, 1.0), (float("inf"), 1.0), (1.0, NAN)])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_weights_never_become_non_finite(factors, clip):
    class Keep(Observer):
        def on_step(self, trainer):
            self.bits = copy.deepcopy(bits(trainer))

    keep, note = Keep(), Note("not finite")
    trainer = make(observers=[keep, note], clip_norm=clip)
    trainer.criterion.factors[1] = factors
    with pytest.raises(
        UserError, match=r"epoch 1, batch 2: a .*b 0\.\d+; gradient.*lr 0.*images 0"
    ):
        trainer.run()
    assert all(map(torch.equal, keep.bits, bits(trainer)))
    assert all(tensor.isfinite().all() for tensor in bits(trainer))
    (event,) = note.events
    assert event["images"] == [0, 1, 2, 3]
    finite_loss = factors[0] == 1.0
    assert event["culprit"] == ("3.bias" if finite_loss else "")
    json.dumps(event, allow_nan=False)


def poisoned(**more):
    """A run whose second batch feeds NaN to BatchNorm."""
    trainer = make(epochs=3, **more)

    def spoil(module, args):
        at = (trainer.progress.epoch, seen["batch"])
        return (args[0] * NAN,) if module.training and at == (0, 1) else None

    class Where(Observer):
        def on_batch(self, trainer, epoch, number, batch):
            seen["batch"] = number

    seen = {"batch": 0}
    trainer.observers = [Where(), *trainer.observers]
    trainer.model[1].register_forward_pre_hook(spoil)
    return trainer


def test_a_skipped_step_leaves_no_trace(capsys):
    """Except positions: weights, statistics, momentum and EMA equal those of a shorter run."""
    note = Note("not finite")
    trainer = poisoned(skip_limit=1, observers=[note, Console()])
    trainer.run()
    assert trainer.progress.skipped == 1
    assert trainer.progress.skipped_in_row == 0
    assert (
        "step skipped (1 so far in this run): non-finite loss or gradient"
        in capsys.readouterr().out
    )

    class WithoutSecond(Loader):
        """Nothing to learn from in the second batch of the first epoch."""

        def all(self, number):
            for n, batch in enumerate(super().all(number)):
                yield batch_of(batch.images[:0]) if (number, n) == (0, 1) else batch

    other = make(epochs=3)
    other.loader = WithoutSecond()
    other.run()
    assert equal(trainer, other)
    assert trainer.progress.history[0]["loss_a"] == other.progress.history[0]["loss_a"]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_with_skipped_steps_resumes_to_the_same_bits(step, accumulate):
    more = {"skip_limit": 2, "accumulate": accumulate}
    whole = poisoned(**more)
    whole.run()
    stop = StopAtStep(step)
    first = poisoned(**more, observers=[stop])
    with pytest.raises(Stopped):
        first.run()
    resumed = poisoned(**more)
    resumed.load_state_dict(stop.state)
    resumed.run()
    assert equal(whole, resumed)
    assert whole.progress.skipped == resumed.progress.skipped
    drop = [{k: v for k, v in r.items() if k != "seconds"} for r in whole.progress.history]
    assert drop == [
        {k: v for k, v in r.items() if k != "seconds"} for r in resumed.progress.history
    ]


def test_too_many_skipped_steps_in_a_row_end_the_run():
    trainer = make(skip_limit=2)
    trainer.criterion.factors = {0: (NAN, 1.0), 2: (NAN, 1.0), 3: (NAN, 1.0), 4: (NAN, 1.0)}
    with pytest.raises(
        UserError, match=r"epoch 2, batch 2.*3 steps in a row .*nonfinite_limit is 2"
    ):
        trainer.run()
    assert trainer.progress.skipped == 4


def test_an_epoch_may_consist_of_skipped_steps():
    trainer = make(skip_limit=3)
    trainer.criterion.factors = dict.fromkeys(range(3), (1.0, NAN))
    trainer.run()
    assert "loss_a" not in trainer.progress.history[0]
    assert trainer.progress.history[1]["loss_a"] > 0


def test_fp16_overflow_is_handled_by_the_scaler_until_its_scale_is_tiny():
    fp16 = Hardware(torch.device("cpu"), "fp16", torch.channels_last)
    trainer, plain = make(hardware=fp16, epochs=3), make(hardware=fp16, epochs=3)
    trainer.criterion.factors[7] = (1.0, float("inf"))
    trainer.run(), plain.run()
    assert trainer.progress.skipped == 0
    assert trainer.scaler.get_scale() == plain.scaler.get_scale() / 2
    always = make(hardware=fp16, epochs=20)
    always.criterion.factors = dict.fromkeys(range(100), (1.0, float("inf")))
    with pytest.raises(
        UserError, match=r"fp16 gradients overflow .*epoch 11, batch 3"
    ):  # the first look after 26
        always.run()
    lost = make(hardware=fp16, skip_limit=1, clip_norm=1.0)
    lost.criterion.factors[1] = (NAN, 1.0)
    lost.run()
    assert lost.progress.skipped == 1


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_full_memory_changes_nothing_but_rounding(limit, accumulate):
    """Without BatchNorm: the gradients are those of the whole batch, in chunks of 2 and of 1."""
    note = Note("split")
    settings = {"norm": False, "accumulate": accumulate, "epochs": 3, "sizes": (4, 5, 2)}
    plain, tight = make(**settings), make(**settings, limit=limit, observers=[note])
    for trainer in (plain, tight):
        trainer.model.double()
        trainer.step.ema = ModelEMA(trainer.model, decay=0.9, warmup=3.0)
        trainer.model.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    plain.run(), tight.run()
    for mine, theirs in zip(bits(plain), bits(tight), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-13)
    for mine, theirs in zip(plain.progress.history, tight.progress.history, strict=True):
        assert mine["loss_a"] == pytest.approx(theirs["loss_a"], rel=1e-12)
    chunks = {1: [2, 4, 8], 2: [2, 4], 3: [2]}[limit]
    assert [event["parts"] for event in note.events] == chunks  # each is announced once, then kept
    assert tight.progress.chunks == chunks[-1]


def test_a_repeated_step_counts_once_in_the_statistics(capsys):
    plain, tight = make(), make(limit=2, observers=[Console()])
    plain.run(), tight.run()
    batches = [trainer.model[1].num_batches_tracked.item() for trainer in (plain, tight)]
    assert batches == [6, 12]  # 3 batches in 2 epochs, each in two chunks
    assert "in 2 chunks of up to 2 images" in capsys.readouterr().out


def test_the_number_of_chunks_is_in_the_checkpoint():
    tight = make(limit=2)
    tight.run()
    other = make(limit=2)
    other.load_state_dict(tight.state_dict())
    assert other.progress.chunks == 2


def test_memory_that_is_too_small_for_one_image():
    with pytest.raises(
        UserError, match=r"out of memory on cpu with a single image; try a smaller data\.size"
    ):
        make(limit=0).run()


class Two(ProcessGroup):
    """Two ranks with the same values."""

    def __init__(self):
        super().__init__(1, 2)

    def all_gather(self, values):
        return torch.stack([values, values])

    def gather_objects(self, value):
        return [value, value]

    def replicate(self, model, *, shared_statistics):
        return model


def test_out_of_memory_on_several_ranks_ends_the_run_and_says_how_to_resume():
    with pytest.raises(MemoryFull, match=r"rank 1 of 2. with up to 4 .* 2 chunks") as caught:
        make(limit=2, process_group=Two()).run()
    assert caught.value.parts == 2


def test_chunks_of_a_batch(rng):
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    index = torch.tensor([0, 0, 2, 3, 4, 4])
    ignored = torch.tensor([1, 4])
    boxes, regions = torch.rand(6, 4), torch.rand(2, 4)
    batch = Batch(images, boxes, torch.arange(6), index, regions, ignored, [9, 8, 7, 6, 5])
    for number in range(1, 8):
        parts = batch.chunk(number)
        assert len(parts) == number
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert [i for p in parts for i in p.image_ids] == [9, 8, 7, 6, 5]
        assert torch.equal(torch.cat([p.images for p in parts]), images)
        assert torch.equal(torch.cat([p.boxes_xyxy for p in parts]), boxes)
        assert torch.equal(torch.cat([p.ignore_xyxy for p in parts]), regions)
        of_image = [p.images.flatten()[p.image_index] for p in parts]
        assert torch.equal(torch.cat(of_image).long(), index)


def replaying(counts):
    """A `total` that returns recorded counts."""
    known = iter(counts)
    return lambda _: next(known)


def test_losses_of_chunks_add_up_to_those_of_the_batch(digits_yaml):
    """The real loss on given maps, wherever the objects are."""
    words = ["data.size=96", "data.workers=0", "train.batch_size=5", "train.device=cpu"]
    config = load_config("yolov4-pacsp-n-mish", words, data=str(digits_yaml))
    data = build.build_data(config)
    model = build.build_model(config.model, 10)
    loss: YOLOLoss = build.build_loss(config, model, 10)
    batch = next(iter(TrainLoader(data.train, batch_size=5, workers=0).epoch(0)))
    maps = [torch.randn(5, 3, 96 // s, 96 // s, 15, dtype=torch.float64) for s in (8, 16, 32)]

    def gradients(parts):
        raw = [level.clone().requires_grad_() for level in maps]
        if parts == 1:
            losses = [loss(raw, batch)]
        else:
            counts = count_whole_batch(loss, [level[:1] for level in raw], batch, lambda n: n)
            starts = [5 * n // parts for n in range(parts + 1)]
            losses = [
                loss([level[a:b] for level in raw], part, replaying(counts))
                for part, (a, b) in zip(batch.chunk(parts), itertools.pairwise(starts), strict=True)
            ]
        sums = {name: sum(each[name] for each in losses) for name in losses[0]}
        sum(loss.weights[name] * value for name, value in sums.items()).backward()
        return sums, [level.grad for level in raw]

    whole = gradients(1)
    for parts in (2, 3, 5):
        sums, grads = gradients(parts)
        for name, value in sums.items():
            assert value.item() == pytest.approx(whole[0][name].item(), rel=1e-6)  # CIoU is float32
        for mine, theirs in zip(grads, whole[1], strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-10)


def test_losses_of_chunks_with_counts_that_follow_the_predictions(digits_yaml):
    """Each chunk estimates the counts of the batch from its own: the losses are averages of its means."""
    words = ["data.size=96", "data.workers=0", "train.batch_size=6", "train.device=cpu"]
    words += ["loss.assigner=simota"]
    config = load_config("yolov4-pacsp-n-mish", words, data=str(digits_yaml))
    data = build.build_data(config)
    loss = build.build_loss(config, build.build_model(config.model, 10), 10)
    batch = next(iter(TrainLoader(data.train, batch_size=6, workers=0).epoch(0)))
    maps = [torch.randn(6, 3, 96 // s, 96 // s, 15) for s in (8, 16, 32)]
    hardware, alone = Hardware.choose("cpu", "fp32", channels_last=False), ProcessGroup()
    chunks = split_into_chunks(MicroBatch(batch, 6, 6, 0), 3, loss, hardware, alone)
    assert [len(chunk.batch) for chunk in chunks] == [2, 2, 2]
    assert [chunk.is_last for chunk in chunks] == [False, False, True]
    summed = Counter()
    means = Counter()
    for number, chunk in enumerate(chunks):
        raw = [level[2 * number : 2 * number + 2] for level in maps]
        summed.update({n: float(v) for n, v in loss(raw, chunk.batch, chunk.counts(raw)).items()})
        means.update({n: float(v) / 3 for n, v in loss(raw, chunk.batch).items()})
    assert dict(summed) == pytest.approx(dict(means), rel=1e-5)


@pytest.mark.parametrize("limit", [1, 2, 7, 16, 64])
def test_the_search_finds_the_largest_batch(limit):
    for true in range(limit + 3):
        asked = []

        def fits(number, true=true, asked=asked):
            asked.append(number)
            return number <= true

        largest = find_max_batch_size(fits, limit)
        assert largest == min(true, limit)
        assert len(asked) == len(set(asked)) <= 2 * limit.bit_length() + 1
        assert all(1 <= n <= limit for n in asked)


def test_the_nominal_batch_is_divided_evenly():
    for largest in range(1, 70):
        size = divide_nominal_batch(64, largest)
        batches = round(64 / size)
        assert size <= largest
        assert abs(size * batches - 64) < batches
        assert (batches - 1) * largest < 64, "no fewer batches would do"


def test_the_probe_counts_images_that_fit():
    trainer = make(limit=11, norm=False)
    probe = MemoryProbe(trainer.model, Mean(), trainer.optimizer, CPU, size=16)
    with probe:
        assert find_max_batch_size(probe.fits, 64) == 11
    assert all(p.grad is None for p in trainer.model.parameters())


class Killed:
    """A data set whose worker is killed at its first image."""

    order = EpochOrder(8, 0)

    def __init__(self, number):
        self.number = number

    def __getitem__(self, key):
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            signal.SIGKILL,
            r"data-loader worker \d+ was killed \(signal: Killed\).*smaller data.workers",
        ),
        (signal.SIGBUS, r"shared memory.*--shm-size=8g.*data.workers"),
    ],
)
def test_a_killed_worker_is_explained(number, message):
    loader = TrainLoader(Killed(number), batch_size=4, workers=1)
    with pytest.raises(RuntimeError) as caught:
        list(loader.epoch(0))
    explained = explain(caught.value)
    assert re.search(message, str(explained))
    assert "\n" not in str(explained)


def test_other_errors_are_not_explained_away():
    assert explain(RuntimeError("shape '[2, 3]' is invalid for input of size 5")) is None
    full = explain(torch.OutOfMemoryError("CUDA out of memory.\nMore"))
    assert str(full).startswith("the GPU is out of memory: CUDA out of memory.; try")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("observer", [EventLog, CsvLog])
def test_a_full_disk_is_one_line(observer, tmp_path):
    path = tmp_path / "events.log"
    path.symlink_to("/dev/full")
    (tmp_path / "events.new").symlink_to("/dev/full")
    with pytest.raises(
        UserError, match=r"events\.log: cannot be written: No space left on device$"
    ):
        make(observers=[observer(path)]).run()


def test_an_incomplete_line_does_not_damage_the_next(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"time": 1, "event": "start"}\n{"time": 2, "ev')
    make(epochs=1, observers=[EventLog(path)]).run()
    lines = path.read_text().splitlines()
    assert lines[1] == '{"time": 2, "ev'
    assert all("event" in json.loads(line) for line in [lines[0], *lines[2:]])


def test_only_training_is_compiled(monkeypatch):
    calls = []

    def compiled(model):
        def forward(images):
            calls.append(len(images))
            return model(images)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    plain, other = make(), make(compile=True)
    plain.run(), other.run()
    assert calls == [4, 4, 2] * 2
    assert equal(plain, other)
    assert list(plain.state_dict()["model"]) == list(other.state_dict()["model"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the compiler's own
def test_a_compiled_network_trains_equally(digits_yaml):
    words = ["data.size=64", "data.workers=0", "train.batch_size=4", "train.epochs=1"]
    words += ["train.precision=fp32", "train.device=cpu", "train.nominal_batch=4"]
    losses = []
    for word in ("train.compile=false", "train.compile=true"):
        config = load_config("yolov4-pacsp-n-mish", [*words, word], data=str(digits_yaml))
        data, hardware = build.build_data(config), build.build_hardware(config)
        evaluator = build.build_evaluator(config, data.val, hardware)
        trainer = build.build_trainer(config, data, evaluator, hardware)
        trainer.run()
        losses.append(trainer.progress.history[0]["loss_box"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_deterministic(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        compute_deterministically()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        make(epochs=1).run()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def test_auto_batch_size_is_the_default_on_a_cpu(digits_yaml):
    words = ["train.batch_size=auto", "train.device=cpu"]
    config = load_config("yolov4-pacsp-n-mish", words, data=str(digits_yaml))
    with pytest.raises(UserError, match=r"auto becomes a number when a run starts"):
        build.build_accumulation(config)
    resolved, (line,) = build.resolve_batch_size(config, 10, CPU, ProcessGroup())
    assert resolved.train.batch_size == 16
    assert "auto is for GPUs; on cpu it is the default, 16" in line
    assert build.resolve_batch_size(resolved, 10, CPU, ProcessGroup()) == (resolved, [])


def test_chunks_equal_collated_batches(digits_yaml):
    """A chunk of a collated batch equals the collated samples of that chunk."""
    config = load_config("yolov4-pacsp-n-mish", ["data.size=64"], data=str(digits_yaml))
    train = build.build_data(config).train
    items = [train[(0, n)] for n in range(4)]
    for part, own in zip(collate(items).chunk(2), (items[:2], items[2:]), strict=True):
        expected = collate(own)
        for name in ("images", "boxes_xyxy", "labels", "image_index", "ignore_index"):
            assert torch.equal(getattr(part, name), getattr(expected, name))
