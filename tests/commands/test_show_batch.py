"""Pictures of batches, samples and augmentations, and the loader's benchmark, by their commands."""

import cv2
import numpy as np
import pytest

from detector.api.augmentation_preview import AugmentationPreview, list_switches
from detector.build import build_bag, build_data
from detector.config import load_config
from detector.data import Bag
from detector.visualize.draw import caption_ground_truth, draw_boxes

CFG = ["--cfg", "yolov4-pacsp-n-mish"]


def test_a_batch_is_drawn(tool, digits_yaml, tmp_path):
    words = [*CFG, "--data", digits_yaml, "--out", "b.png", "data.size=96", "train.batch_size=4"]
    status, out, _ = tool("show_batch", *words, "bag=yolov4")
    assert status == 0
    assert "4 images of " in out
    assert cv2.imread(str(tmp_path / "b.png")).shape == (800, 800, 3)
    status, _, err = tool("show_batch", *words, "--batch", "3")
    assert status == 2
    assert "an epoch has 3 batches" in err


def test_a_drawn_sample_equals_that_of_training(tool, digits_yaml, tmp_path):
    words = ["data.size=96", "bag=yolov4", "train.seed=5"]
    status, out, _ = tool(
        "show_batch", *CFG, "--data", digits_yaml, "--sample", 2, 7, "--out", "s.png", *words
    )
    assert status == 0
    assert out.startswith("sample 7 of epoch 2, ")
    data = build_data(load_config("yolov4-pacsp-n-mish", words, data=str(digits_yaml)))
    drawn = cv2.cvtColor(cv2.imread(str(tmp_path / "s.png")), cv2.COLOR_BGR2RGB)
    sample = data.train.sample(2, 7, drawn.shape[:2]).sample
    assert np.array_equal(drawn, draw_boxes(caption_ground_truth(sample, data.names)))
    status, _, err = tool("show_batch", *CFG, "--data", digits_yaml, "--sample", 0, 99)
    assert status == 2
    assert "no such sample" in err


def test_each_augmentation_has_a_picture(tool, digits_yaml, tmp_path):
    words = [*CFG, "--data", digits_yaml, "data.size=96", "bag.hsv_h=0.3"]
    status, out, _ = tool("show_batch", *words, "--each", "--out", "each")
    assert status == 0
    switches = list_switches(load_config("yolov4-pacsp-n-mish", []))
    assert f"{len(switches)} pictures" in out
    for switch in switches:
        sheet = cv2.imread(str(tmp_path / "each" / f"{switch}.jpg"))
        assert sheet.shape == (800, 1600, 3)
        assert np.abs(sheet[:400].astype(int) - sheet[400:]).max() > 30, f"{switch} does nothing"


def test_every_strength_of_the_bag_has_a_picture(digits_yaml):
    config = load_config("yolov4-pacsp-n-mish", ["bag.scale=0.25"], data=str(digits_yaml))
    switches = set(list_switches(config))
    assert switches - set(Bag.__dataclass_fields__) == {"multi_scale", "albumentations"}
    unseen = {"extra", "cutmix_alpha", "mixup_alpha"}  # of a switch that has a picture
    assert set(Bag.__dataclass_fields__) - switches == unseen
    switches = set(list_switches(load_config("cnn6-mish-cls", [])))
    assert {"crop", "mosaic", "cutmix", "mixup", "degrees", "erase"} <= switches
    assert not {"paste", "mosaic9"} & switches
    data = build_data(config)
    preview = AugmentationPreview(config, data.train, data.names)
    assert build_bag(preview.isolate("scale"), mirrors=True) == Bag(scale=0.25)
    assert build_bag(preview.isolate("shear"), mirrors=True) == Bag(shear=10.0)
    assert build_bag(preview.isolate("mosaic9"), mirrors=True) == Bag(mosaic=1.0, mosaic9=1.0)


@pytest.mark.slow
def test_training_with_every_augmentation(tool, digits_yaml):
    status, out, err = tool(
        "train",
        *[*CFG, "--data", digits_yaml, "--out", "run", "data.size=64", "data.workers=0"],
        *[
            "bag={preset: yolov4, mosaic9: 0.5, mixup: 0.5, paste: 0.5, erase: 0.5, perspective: 0.1}"
        ],
        *["data.sampling=repeat_factor", "data.sampling_threshold=0.9", "train.precision=fp32"],
        *["train.epochs=1", "train.batch_size=4", "train.threads=1"],
    )
    assert (status, err) == (0, "")
    assert "epoch   1/1" in out


def test_an_invalid_transform_is_refused_before_the_run(tool, digits_yaml, tmp_path):
    status, _, err = tool(
        "train",
        *[*CFG, "--data", digits_yaml, "--out", "run", "data.size=64", "data.workers=0"],
        "bag.albumentations=[{name: RandomCrop, height: 100, width: 100, p: 0.01}]",
    )
    assert status == 2
    assert err.startswith("error: bag.albumentations: fails on an image of 64x64 px: ")
    assert not (tmp_path / "run").exists()


def test_a_mirroring_transform_is_refused_where_mirrors_is_false(tool, digits_yaml):
    words = [*CFG, "--data", digits_yaml, "bag.albumentations=[{name: HorizontalFlip, p: 0.5}]"]
    status, _, err = tool("train", *words)
    assert status == 2
    assert err.startswith(
        "error: bag.albumentations: HorizontalFlip mirrors images, but the data YAML has"
    )


def test_the_loaders_benchmark(tool, digits_yaml, tmp_path, monkeypatch):
    (tmp_path / "others.py").write_text(
        "import numpy as np\n"
        "def batches(data, size, batch_size):\n"
        "    return [(np.zeros((batch_size, 3, size, size)), None)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    threads = cv2.getNumThreads()
    words = [
        "--data",
        digits_yaml,
        "--sizes",
        64,
        "--batch",
        4,
        "--images",
        4,
        "--turns",
        1,
        "--cpu-time",
    ]
    status, out, _ = tool("bench_loader", *words, "--vs", "others:batches")
    cv2.setNumThreads(threads)
    assert status == 0
    assert cv2.__version__ in out
    for mode in ("default", "four fresh images", "tile buffer", "ram cache"):
        assert f"{mode}, 64 px: loader " in out
    assert "%; others:batches " in out
    for vs, message in (("others", "expected module:function"), ("others:none", "no attribute")):
        status, _, err = tool("bench_loader", *words, "--vs", vs)
        assert status == 2
        assert message in err


def test_bench_loader_reports_throughput_and_bottleneck(tool, digits_yaml, tmp_path):
    words = ["data.size=64", "data.workers=0", "train.batch_size=2", "data.cache=ram"]
    status, out, err = tool("bench_loader", *CFG, "--data", digits_yaml, *words)
    assert (status, err) == (0, "")
    assert "data.cache: 12 training images need 0.00 GB in memory" in out
    assert "throughput: loader " in out
    assert "loading and training alternate; bottleneck: " in out
    assert not (tmp_path / "runs").exists()
    status, _, err = tool("bench_loader", "data.size=64")
    assert status == 2
    assert "data.size=64: key=value needs --cfg" in err
