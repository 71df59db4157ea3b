"""What only a GPU shows; `pytest -m gpu`."""

import pytest
import torch

from detector import build
from detector.config import load_config
from detector.data import TrainLoader, ValSet
from detector.decode import decode
from detector.device import scale_images
from detector.engine import cuda_graphs
from detector.postprocess import suppress

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
WORDS = ["data.size=96", "data.workers=0", "train.batch_size=4", "train.epochs=2"]


def config_for(digits_yaml, *words):
    return load_config("yolov4-pacsp-n-mish", [*WORDS, *words], data=str(digits_yaml))


def test_losses_and_gradients_equal_the_cpus(digits_yaml, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 10 bits of mantissa
    config = config_for(digits_yaml)
    data = build.build_data(config)
    batch = next(iter(TrainLoader(data.train, batch_size=4, workers=0).epoch(0)))
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = build.build_model(config.model, 10).to(device)
        loss = build.build_loss(config, model, 10)
        moved = batch.to(torch.device(device), torch.channels_last)
        losses = loss(model(scale_images(moved.images)), moved)
        sum(losses.values()).backward()
        gradient = model.head.get_parameter("levels.0.1.weight").grad
        results.append([*(value.item() for value in losses.values()), gradient.cpu()])
    assert results[0][:3] == pytest.approx(results[1][:3], rel=1e-3)
    assert torch.allclose(results[0][3], results[1][3], rtol=1e-2, atol=1e-4)


def test_postprocess_equals_the_cpus(digits_yaml):
    config = config_for(digits_yaml)
    val: ValSet = build.build_data(config).val
    torch.manual_seed(0)
    model = build.build_model(config.model, 10)
    raw = [torch.randn(2, 3, s, s, 15) for s in (12, 6, 3)]
    assert len(val) == 5
    detections = []
    for device in ("cpu", "cuda"):
        moved = [level.to(device) for level in raw]
        candidates = decode(moved, model.anchors.to(device), model.strides, conf=0.2)
        detections.append(suppress(candidates, 2, nms_iou=0.65, max_detections=300))
    for a, b in zip(*detections, strict=True):
        assert torch.equal(a.labels, b.labels.cpu())
        assert torch.allclose(a.boxes_xyxy, b.boxes_xyxy.cpu(), atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(digits_yaml, precision):
    config = config_for(digits_yaml, f"train.precision={precision}", "train.device=cuda")
    data, hardware = build.build_data(config), build.build_hardware(config)
    evaluator = build.build_evaluator(config, data.val, hardware)
    trainer = build.build_trainer(config, data, evaluator, hardware)
    trainer.run()
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    assert trainer.progress.epoch == 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("nominal", [4, 8])
def test_cuda_graphs_give_the_losses_of_eager_mode(digits_yaml, precision, nominal, monkeypatch):
    """Two epochs of a full and two smaller shapes; `nominal` 8 accumulates two batches per step."""
    monkeypatch.setattr(cuda_graphs, "SEEN_BEFORE", 1)
    words = [f"train.precision={precision}", "train.device=cuda", "train.epochs=4"]
    words += [f"train.nominal_batch={nominal}", "train.warmup_min_steps=2", "bag.multi_scale=1.0"]
    words += ["train.deterministic=true"]
    histories, weights = [], []
    for capture in ("false", "true"):
        config = config_for(digits_yaml, *words, f"train.capture={capture}")
        data, hardware = build.build_data(config), build.build_hardware(config)
        evaluator = build.build_evaluator(config, data.val, hardware)
        trainer = build.build_trainer(config, data, evaluator, hardware)
        trainer.run()
        histories.append([[row["loss_box"], row["loss_obj"]] for row in trainer.progress.history])
        weights.append(trainer.model.head.get_parameter("levels.0.1.weight").detach().cpu())
        if capture == "true":
            assert trainer.step._graphed is not None
            assert len(trainer.step._graphed._graphs) >= 1
    torch.testing.assert_close(
        torch.tensor(histories[0]), torch.tensor(histories[1]), rtol=2e-2, atol=1e-4
    )
    torch.testing.assert_close(*weights, rtol=2e-2, atol=2e-3)
    print(precision, nominal, histories, (weights[0] - weights[1]).abs().max())
