"""tools/val.py as a user runs it."""

import collections
import csv
import html.parser
import json
import re

import numpy as np
import pytest
import torch

from detector.build import build_model
from detector.config import Config, ModelConfig, config_to_dict, replace_values
from detector.engine import save_checkpoint
from detector.evaluation import METRICS, GroundTruth, read_results
from tests.commands.running import SMALL, table_of
from tests.models.networks import randomize_norms


@pytest.fixture
def two_runs(tmp_path, digits_yaml):
    """Run folders of untrained networks that detect something, with two activations."""
    for name in ("mish", "leaky_relu"):
        torch.manual_seed(len(name))
        config = Config(model=ModelConfig(arch="yolov4-pacsp-n", activation=name))
        config = replace_values(config, {"data.dataset": str(digits_yaml)})
        model = randomize_norms(build_model(config.model, 10))
        (tmp_path / name).mkdir()
        save_checkpoint(
            tmp_path / name / "best.pt",
            {
                "config": config_to_dict(config),
                "names": [str(n) for n in range(10)],
                "weights": model.state_dict(),
            },
        )
    return tmp_path


def val_json(digits_root):
    return digits_root / "annotations" / "instances_val2017.json"


def test_saved_detections_give_the_same_numbers(tool, two_runs, digits_root, tmp_path):
    words = ["--json", "a.json", "--save-results", "boxes.json", *SMALL]
    status, first, err = tool("val", "--weights", "mish", *words)
    assert status == 0, err
    assert (tmp_path / "mish" / "val.jpg").is_file()
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert row["size"] == 96
    assert row["activation"] == "mish"
    assert set(row["ms_per_image"]) == {"images", "network", "boxes"}
    alone = tmp_path / "alone"  # the json alone, no image
    (alone / "annotations").mkdir(parents=True)
    (alone / "annotations" / "instances_val2017.json").write_bytes(
        val_json(digits_root).read_bytes()
    )
    (tmp_path / "alone.yaml").write_text("format: coco\nroot: alone\n")
    for data in (val_json(digits_root), "alone.yaml"):
        for backend in ("pycocotools", "auto"):
            more = ["--data", data, "--backend", backend, "--json", "b.json"]
            status, again, err = tool("val", "--results", "boxes.json", *more)
            assert status == 0, err
            assert table_of(again) == table_of(first)
            (other,) = json.loads((tmp_path / "b.json").read_text())
            assert other["metrics"] == row["metrics"]
            assert backend == "auto" or other["evaluator"].startswith("pycocotools 2.")
    ground_truth = GroundTruth.from_coco(val_json(digits_root))
    assert len(read_results(tmp_path / "boxes.json", ground_truth)) > 100


def test_several_models_are_compared_with_intervals(tool, two_runs, tmp_path):
    words = ["--interval", "20", "--json", "a.json", *SMALL]
    status, out, err = tool("val", "--weights", "mish", "leaky_relu/best.pt", *words)
    assert status == 0, err
    head, *_ = (line for line in out.splitlines() if line.startswith("Detector"))
    assert head.split() == [
        "Detector",
        "Activation",
        "AP",
        "AP50",
        "AP75",
        "APs",
        "APm",
        "APl",
        "Weights",
        "or",
        "results",
    ]
    assert re.search(r"yolov4-pacsp-n +mish .*\n +95 % CI low", out)
    assert re.search(r"yolov4-pacsp-n - first", out)
    a, b = json.loads((tmp_path / "a.json").read_text())
    assert set(a["interval_95"]) == set(b["difference_to_first"]) == set(METRICS)
    for name in METRICS:
        change = b["difference_to_first"][name]
        if a["metrics"][name] is None:
            assert change["interval_95"] is None
        else:
            expected = b["metrics"][name] - a["metrics"][name]
            assert change["difference"] == pytest.approx(expected)


def test_a_model_does_not_differ_from_itself(tool, two_runs, tmp_path):
    words = ["--interval", "10", "--json", "a.json", *SMALL]
    status, _, err = tool("val", "--weights", "mish", "mish/best.pt", *words)
    assert status == 0, err
    _, same = json.loads((tmp_path / "a.json").read_text())
    assert same["difference_to_first"]["AP"] == {"difference": 0.0, "interval_95": [0.0, 0.0]}


@pytest.mark.parametrize(
    "words",
    [["--size", "128"], ["--protocol", "rectangular"], ["--precision", "bf16"], ["--tta"]],
    ids=lambda words: words[0],
)
def test_options_of_the_inference(tool, two_runs, tmp_path, words):
    plain = [word for word in SMALL if words != ["--precision", "bf16"] or "precision" not in word]
    plain = [word for word in plain if words[0] != "--size" or "data.size" not in word]
    status, out, err = tool("val", "--weights", "mish", *plain, *words, "--json", "a.json")
    assert status == 0, err
    assert len(table_of(out)) == 12
    (row,) = json.loads((tmp_path / "a.json").read_text())
    key, value = {
        "--size": ("size", 128),
        "--protocol": ("protocol", "rectangular"),
        "--precision": ("precision", "bf16"),
        "--tta": ("flip", True),
    }[words[0]]
    assert row[key] == value


def test_invalid_options_are_refused(tool, two_runs, tmp_path, digits_root):
    (tmp_path / "r.json").write_text("[]")
    for words, message in (
        (["--results", "r.json"], "--results needs the ground truth"),
        (["--results", "none.json", "--data", val_json(digits_root)], "none.json"),
        (["--weights", "mish", "--interval", "1"], "at least 2"),
        (["--weights", "mish", "mish", "--save-results", "x"], "works for one model"),
        (["--weights", "mish", "--size", "100"], "not a multiple"),
        (["--weights", "mish", "--want-precision", "90"], "--want-precision 90"),
        (["--weights", "mish", "--want-recall", "nan"], "--want-recall nan"),
    ):
        status, _, err = tool("val", *words)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1
    status, out, _ = tool("val", "--results", "r.json", "--data", val_json(digits_root))
    assert status == 0
    assert "AP      0.0000" in out


CHARTS = ("errors", "sizes", "precision_recall", "scores", "f1", "calibration", "confusion")


@pytest.fixture
def noisy(tmp_path, digits_root):
    """A results file: ground truth moved a little, some of another class, and random boxes."""
    tree = json.loads(val_json(digits_root).read_text())
    rng = np.random.default_rng(0)
    detections = []
    for entry in tree["annotations"]:
        box = (np.array(entry["bbox"]) * rng.uniform(0.95, 1.05, 4)).tolist()
        category = entry["category_id"] if rng.random() < 0.8 else 3
        score = float(rng.uniform(0.3, 1))
        one = {"image_id": entry["image_id"], "category_id": category, "bbox": box}
        detections.append({**one, "score": score})
        if rng.random() < 0.5:
            detections.append({**one, "bbox": [0, 0, 9, 9], "score": 0.7 * score})
    (tmp_path / "noisy.json").write_text(json.dumps(detections))
    return tmp_path / "noisy.json"


def test_the_report_is_one_self_contained_file(tool, two_runs, tmp_path, digits_root):
    words = ["--report", "report", "--interval", "5", *SMALL]
    status, _, err = tool("val", "--weights", "mish", *words)
    assert status == 0, err
    page = (tmp_path / "report" / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|https?:|@import|url\(", page)
    parser = WellFormed()
    parser.feed(page)
    assert parser.open == []
    assert parser.counts["section"] == 12
    assert parser.counts["svg"] == len(CHARTS)
    assert parser.counts["img"] > 5
    pictures = {path.stem for path in (tmp_path / "report").glob("*.png")}
    assert pictures >= set(CHARTS)
    assert len(pictures) == parser.counts["img"] + parser.counts["svg"]
    label_errors = json.loads((tmp_path / "report" / "label_errors.json").read_text())
    assert {one["kind"] for one in label_errors} >= {"no label", "nothing there"}
    assert all((digits_root / "val2017" / one["file"]).is_file() for one in label_errors)


def test_report_of_a_results_file_with_and_without_images(
    tool, noisy, tmp_path, digits_root, digits_yaml
):
    words = ["--results", noisy, "--report"]
    status, out, err = tool("val", *words, "with", "--data", digits_yaml)
    assert status == 0, err
    assert list((tmp_path / "with").glob("worst_*.png"))
    (tmp_path / "imageless.yaml").write_text(
        f"root: {digits_root}\nval: {{images: nowhere, annotations: {val_json(digits_root)}}}\n"
    )
    for data, why in ((val_json(digits_root), "names a json"), ("imageless.yaml", "nowhere")):
        status, out, err = tool("val", *words, "without", "--data", data)
        assert status == 0, err
        assert re.search(f"no pictures: .*{why}", out)
        assert "<img" not in (tmp_path / "without" / "report.html").read_text()
        pictures = {path.stem for path in (tmp_path / "without").glob("*.png")}
        assert pictures == set(CHARTS)


def test_a_precision_goal_sets_a_threshold_for_each_class(tool, noisy, tmp_path, digits_root):
    words = ["--results", noisy, "--data", val_json(digits_root)]
    status, out, err = tool("val", *words, "--report", "report", "--want-precision", "0.9")
    assert status == 0, err
    thresholds = json.loads((tmp_path / "report" / "thresholds.json").read_text())
    assert thresholds["goal"] == "precision 0.9"
    assert thresholds["all"]["precision"] >= 0.9
    points = {one["name"]: one["point"] for one in thresholds["classes"]}
    assert all(point is None or point["precision"] >= 0.9 for point in points.values())
    assert None in points.values()
    for name, point in points.items():
        line = f"score {point['score']:.3f}" if point else "not reached, at most"
        assert not next(
            o["truths"] for o in thresholds["classes"] if o["name"] == name
        ) or re.search(rf"  {name} +{line}", out)
    with (tmp_path / "report" / "confusion.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [row[0] for row in rows] == [*points, "background"]

    status, out, err = tool("val", *words, "--want-recall", "1")
    assert status == 0, err
    assert re.search("all classes +not reached, at most 0.", out)


class WellFormed(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.counts = [], collections.Counter()

    def handle_starttag(self, tag, attrs):
        self.counts[tag] += 1
        if tag not in ("meta", "img", "br", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "html":
            assert self.open.pop() == tag
