"""`Detector`: images of every kind in, detections out, equal to those of an evaluation."""

import doctest
import functools
import http.server
import json
import runpy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import detector
from detector import Detector, UserError
from detector.api import detections as results
from detector.api import shortcuts
from detector.build import build_model
from detector.config import Config, ModelConfig, config_to_dict, replace_values
from detector.data import read_image
from detector.engine import save_checkpoint
from tests.models.networks import randomize_norms

NAMES = [str(n) for n in range(10)]
OPTIONS = {"precision": "fp32", "device": "cpu", "conf": 0.03, "size": 96}


@pytest.fixture(scope="module")
def weights(tmp_path_factory, digits_root):
    """Random weights that detect something."""
    folder = tmp_path_factory.mktemp("run")
    data = folder / "digits.yaml"
    data.write_text(f"format: coco\nroot: {digits_root}\nmirrors: false\n")
    torch.manual_seed(5)
    config = Config(model=ModelConfig(arch="yolov4-pacsp-n", activation="mish"))
    config = replace_values(config, {"data.dataset": str(data), "data.size": 96, "data.workers": 0})
    model = randomize_norms(build_model(config.model, 10))
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if name.endswith("bias"):
                parameter += 1.5
    content = {"config": config_to_dict(config), "names": NAMES, "weights": model.state_dict()}
    save_checkpoint(folder / "best.pt", content)
    return folder


@pytest.fixture(scope="module")
def model(weights):
    return Detector(weights, **OPTIONS)


@pytest.fixture(scope="module")
def files(digits_root):
    return sorted((digits_root / "val2017").glob("*"))


def same(a, b):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("boxes_xyxy", "scores", "labels")
    )


def assert_close(a, b):
    """Equal but for the last bits, which depend on the number of images in a batch."""
    torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2, rtol=0)
    assert torch.equal(a.labels, b.labels)


def test_boxes_are_those_of_the_evaluation(weights, digits_root, tmp_path, capsys):
    evaluation = detector.evaluate(weights, **{"train.precision": "fp32", "train.device": "cpu"})
    wanted = evaluation.results
    exact = Detector(weights, **{**OPTIONS, "conf": 0.001}, fuse=False)
    reader = evaluation.reader
    paths = [reader.index.folder / reader.index.files[n] for n in range(len(reader.index))]
    found = exact(paths, batch_size=16)
    assert sum(map(len, found)) == len(wanted.score) > 50
    for number, each in enumerate(found):
        mine = wanted.image == number
        order = np.lexsort((wanted.label[mine], -wanted.score[mine]))
        rows = each.to_coco(number, reader.index.category_ids.tolist())
        again = np.lexsort(([row["category_id"] for row in rows], [-row["score"] for row in rows]))
        np.testing.assert_array_equal([rows[n]["score"] for n in again], wanted.score[mine][order])
        np.testing.assert_array_equal(
            [rows[n]["bbox"] for n in again], wanted.boxes_xywh[mine][order]
        )


def test_fused_batch_norms_change_scores_little(weights, model, files):
    exact = Detector(weights, **OPTIONS, fuse=False)
    for a, b in zip(model(files), exact(files), strict=True):
        assert len(a) == len(b) > 0
        torch.testing.assert_close(a.scores, b.scores, atol=1e-4, rtol=0)
        torch.testing.assert_close(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2, rtol=0)


def test_every_kind_of_image_gives_the_same_detections(model, files, tmp_path):
    image = read_image(str(files[0]))
    expected = model(files[0])
    assert len(expected) > 0
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    kinds = {
        "text": model(str(files[0])),
        "RGB": model(image, channels="RGB"),
        "BGR": model(image[:, :, ::-1], channels="BGR"),
        "PIL": model(Image.fromarray(image)),
        "bytes": model(tensor),
        "floats": model(tensor.float() / 255),
    }
    for kind, found in kinds.items():
        assert same(found, expected), kind
        np.testing.assert_array_equal(found.image, image)
    for found in model(torch.stack([tensor, tensor])):
        assert_close(found, expected)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert same(model(grey), model(np.repeat(grey[..., None], 3, 2), channels="RGB"))


def test_mixed_sizes_batches_and_folders(model, files, digits_root):
    images = [read_image(str(path)) for path in files]
    images[1] = images[1][:50, :70]
    images[2] = cv2.resize(images[2], (33, 201))
    alone = [model(image, channels="RGB") for image in images]
    together = model(images, channels="RGB", batch_size=2)
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
        assert (b.boxes_xyxy[:, 2] <= b.image.shape[1]).all()
    folder = model(digits_root / "val2017")
    assert [each.source for each in folder] == list(map(str, files))
    assert all(map(same, folder, model(iter(files))))


def test_one_file_that_cannot_be_read_leaves_the_others(model, files, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    first, second, third = model([files[0], broken, files[1]])
    assert_close(first, model(files[0]))
    assert_close(third, model(files[1]))
    assert len(second) == 0
    assert second.error.startswith(f"{broken}: ")
    assert second.names == tuple(NAMES)
    with pytest.raises(UserError, match=r"broken\.jpg"):
        model(broken)
    with pytest.raises(UserError, match="nothing to draw"):
        second.save(tmp_path / "picture.jpg")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), 'give channels="BGR"'),
        (np.zeros((8, 8, 3)), "dtype float64: expected uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \[8, 8, 4\]: expected"),
        (np.zeros((0, 8), np.uint8), "it has no pixels"),
        (torch.zeros(8, 8, 3), r"shape \[8, 8, 3\]: expected \[3, H, W\]"),
        (torch.full((3, 8, 8), 255.0), "values 255 to 255: expected floats in"),
        (torch.full((3, 8, 8), float("nan")), "expected floats in"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "dtype torch.int64"),
        (7, "of type int: expected a path"),
        ([None], "of type NoneType"),
        ("missing.jpg", "missing.jpg: no such file"),
        ("https://example.org/a.jpg", "URLs are loaded only if asked for; give urls=True"),
    ],
)
def test_what_is_no_image(model, image, message):
    with pytest.raises(UserError, match=message):
        model(image)


def test_a_url_when_asked_for(model, files):
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(files[0].parent)
    )
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        found = model(f"{base}/{files[0].name}", urls=True)
        assert same(found, model(files[0]))
        assert found.source == f"{base}/{files[0].name}"
        with pytest.raises(UserError, match=r"missing\.jpg: "):
            model(f"{base}/missing.jpg", urls=True)
        server.shutdown()


def test_thresholds_and_classes(weights, model, files, tmp_path):
    every = model(files[0])
    name = every.names[int(every.labels[0])]
    only = Detector(weights, **OPTIONS, classes=[name])(files[0])
    assert set(only.labels.tolist()) == {NAMES.index(name)}
    assert same(only, every.select(every.labels == NAMES.index(name)))
    assert same(Detector(weights, **OPTIONS, classes=[NAMES.index(name)])(files[0]), only)
    middle = float(every.scores.median())
    options = {**OPTIONS, "conf": {name: 1.0} | {n: middle for n in NAMES if n != name}}
    strict = Detector(weights, **options)(files[0])
    kept = (every.scores > middle) & (every.labels != NAMES.index(name))
    assert same(strict, every.select(kept))
    report = tmp_path / "thresholds.json"
    rows = [{"name": n, "point": {"score": middle}} for n in NAMES]
    report.write_text(json.dumps({"classes": rows}))
    filed = Detector(weights, **{**OPTIONS, "conf": report})(files[0])
    assert same(filed, every.select(every.scores > middle))


def test_suppression_across_classes(weights, files):
    options = {**OPTIONS, "nms_iou": 0.3}
    within = Detector(weights, **options)(files[0])
    across = Detector(weights, **options, class_agnostic=True)(files[0])
    assert 0 < len(across) < len(within)
    from torchvision.ops import box_iou

    iou = box_iou(across.boxes_xyxy, across.boxes_xyxy).fill_diagonal_(0)
    assert iou.max() <= 0.31
    assert len(Detector(weights, **options, max_detections=2)(files[0])) == 2


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (1.5, "expected a number between 0 and 1"),
        (float("nan"), "expected a number between 0 and 1"),
        ({"cat": 0.5}, "unknown class 'cat'"),
        ("no.json", "no.json: no such file"),
        (__file__, "not a thresholds.json of a report"),
    ],
)
def test_wrong_thresholds(model, conf, message):
    with pytest.raises(UserError, match=message):
        model.set_thresholds(conf)
    assert len(model(np.zeros((9, 9), np.uint8)).names) == 10  # as before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cat"]}, "unknown class 'cat'; the model has 0, 1, 2"),
        ({"classes": [10]}, "unknown class 10"),
        ({"size": 100}, "not a multiple"),
        ({"device": "warp"}, "device"),
        ({"nms_iou": 2.0}, "nms_iou"),
    ],
)
def test_wrong_options_are_one_error(weights, options, message):
    with pytest.raises(UserError, match=message):
        Detector(weights, **{**OPTIONS, **options})


def test_threads_share_a_detector(model, files):
    expected = model(files)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model(files), range(4)):
            assert all(map(same, found, expected))


def test_pictures_crops_and_rows(model, files, tmp_path):
    found = model(files[0])
    assert found.save(tmp_path) == tmp_path / f"{files[0].stem}.jpg"
    assert read_image(str(tmp_path / f"{files[0].stem}.jpg")).shape == found.image.shape
    assert found.plot().shape == found.image.shape
    assert (found.plot() != found.image).any()
    assert [crop.ndim for crop in found.crop(0.1)] == [3] * len(found)
    assert all(crop.size for crop in found.crop())
    assert len(found.to_yolo().splitlines()) == len(found.to_coco()) == len(list(found))
    rows = found.to_coco(5, category_ids=range(100, 110))
    assert rows[0]["category_id"] == 100 + int(found.labels[0])
    assert len(found.select(found.scores > 2)) == 0
    assert found.select(found.scores > 2).to_yolo() == ""


@pytest.mark.parametrize("module", [results, shortcuts])
def test_the_examples_print_what_they_say(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_importing_detector_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import detector, sys; assert 'torch' not in sys.modules; print(sorted(detector.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Detector" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        detector.Detektor  # noqa: B018


def test_the_example_script(digits_yaml, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["data.size=64", "train.device=cpu", "train.precision=fp32", "data.workers=0"]
    script = Path(__file__).parents[2] / "docs/examples/detect_in_python.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(digits_yaml), *words])
    runpy.run_path(str(script))
    assert (tmp_path / "runs/example/found.jpg").is_file()
    out = capsys.readouterr().out
    assert "runs/example: AP 0." in out
    assert "'AP50': 0." in out


def test_a_run_is_resumed_by_the_same_call(digits_yaml, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {"data": digits_yaml, "train__epochs": 1, "data__size": 64, "data__workers": 0}
    options |= {"train__device": "cpu", "train__precision": "fp32", "train__batch_size": 8}
    first = detector.train("yolov4-pacsp-n-mish", out="runs/a", **options)
    assert first.folder.name == "a"
    assert first.metrics["AP"] == first.ap
    again = detector.train("yolov4-pacsp-n-mish", out="runs/a", resume=True, **options)
    assert again == first
    assert "already finished: 1 of 1 epochs" in capsys.readouterr().out
