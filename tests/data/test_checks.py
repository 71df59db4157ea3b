"""Each fault is put into a clean data set, and has to be the only problem that is reported."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from detector.data import Finding, read_coco
from detector.data.checks import KINDS, Problem, check_dataset, describe_label_problems
from detector.data.checks.labels import HUGE, TINY, check_labels, find_duplicate_boxes
from detector.data.checks.problems import MAX_EXAMPLES, UNKNOWN
from tests.data.scenes import scene

ANCHORS = np.array([[20.0, 15.0]])


def box(i, image, xywh, category=1, crowd=0):
    area = xywh[2] * xywh[3]
    return {"id": i, "image_id": image, "category_id": category, "bbox": xywh} | {
        "area": area,
        "iscrowd": crowd,
    }


@pytest.fixture(scope="module")
def clean_splits(tmp_path_factory):
    """A COCO folder without a fault: 110 training and 20 validation images, two classes."""
    root = tmp_path_factory.mktemp("clean")
    (root / "annotations").mkdir()
    for split, count, first in (("train", 110, 0), ("val", 20, 1000)):
        (root / f"{split}2017").mkdir()
        tree = {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
        tree["images"], tree["annotations"] = [], []
        for n in range(count):
            image = {"id": n, "file_name": f"{n}.png", "width": 64, "height": 48}
            tree["images"].append(image)
            boxes = [box(2 * n + 1, n, [4, 4, 20, 15]), box(2 * n + 2, n, [30, 20, 20, 15], 2)]
            tree["annotations"] += boxes
            picture = scene(first + n, 48, 64)
            cv2.imwrite(str(root / f"{split}2017" / image["file_name"]), picture)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(tree))
    return root


@pytest.fixture
def data(clean_splits, tmp_path):
    """A copy of the clean data set that a test may change; images are links until it does."""
    for path in clean_splits.rglob("*"):
        target = tmp_path / "data" / path.relative_to(clean_splits)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.hardlink_to(path) if path.suffix == ".png" else target.write_bytes(
                path.read_bytes()
            )
    return tmp_path / "data"


def splits_of(root):
    return {
        split: read_coco(
            root / f"{split}2017", root / "annotations" / f"instances_{split}2017.json", None
        )
        for split in ("train", "val")
    }


def check(root, **options):
    options = {"size": 64, "anchors": ANCHORS} | options
    return check_dataset("mine.yaml", splits_of(root), **options)


def edit(root, change, split="train"):
    path = root / "annotations" / f"instances_{split}2017.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def replace_file(path, content):
    path.unlink()  # a link to the clean one
    path.write_bytes(content)


def kinds(report):
    return {problem.kind: problem for problem in report.problems}


def test_a_clean_data_set_has_no_problem(data):
    report = check(data)
    assert report.problems == []
    assert not report.failed(strict=True)
    assert "0 kinds of errors, 0 kinds of warnings; 130 images decoded" in report.text()
    assert "100.00% of 220 boxes matched" in report.text()


def first_box(**changes):
    return lambda tree: tree["annotations"][0].update(changes)


LABEL_FAULTS = [
    ("flat box", first_box(bbox=[4, 4, 0, 15]), "annotation 1"),
    ("box outside", first_box(bbox=[100, 4, 20, 15]), "annotation 1"),
    ("not finite", first_box(bbox=[float("nan"), 4, 20, 15]), "annotation 1"),
    ("annotation id 0", first_box(id=0), "annotation 0"),
    ("box partly outside", first_box(bbox=[-4, 4, 20, 15]), "train2017/0.png: cat at 0.0 4.0"),
    ("huge box", first_box(bbox=[0, 0, 64, 48]), "train2017/0.png: cat at 0.0 0.0 64.0 48.0"),
    ("tiny box", first_box(bbox=[4, 4, 20, 1.5]), "train2017/0.png: cat at"),
    (
        "duplicate box",
        lambda tree: tree["annotations"].append(box(999, 3, [4.2, 4.2, 20, 15])),
        "train2017/3.png: cat at 4.2 4.2",
    ),
    (
        "image without label",
        lambda tree: tree.update(annotations=tree["annotations"][:-2]),
        "train2017/109.png",
    ),
    (
        "missing image",
        lambda tree: tree["images"].append(
            {"id": 500, "file_name": "gone.png", "width": 64, "height": 48}
        ),
        "gone.png: no such file",
    ),
    (
        "class without boxes",
        lambda tree: tree["categories"].append({"id": 3, "name": "owl"}),
        "owl",
    ),
    ("box without anchor", first_box(bbox=[4, 4, 4, 15]), "train2017/0.png: cat at"),
]
FOLLOWS = {"tiny box": {"box without anchor"}}  # what a fault also causes


@pytest.mark.parametrize(("kind", "change", "example"), LABEL_FAULTS)
def test_each_label_fault_is_the_only_problem_reported(data, kind, change, example):
    edit(data, change)
    if kind == "class without boxes":
        edit(data, change, "val")
    report = check(data, decode=False)
    assert kinds(report).keys() - FOLLOWS.get(kind, set()) == {kind}
    problem = kinds(report)[kind]
    assert problem.count == 1
    assert example in problem.examples[0]
    error = KINDS[kind].severity == "error"
    assert report.failed(strict=False) == error
    assert report.failed(strict=True)
    for word in (kind, KINDS[kind].advice, problem.examples[0]):
        assert word in report.text()


def test_half_a_pixel_outside_is_rounding(data):
    edit(data, first_box(bbox=[-0.5, 4, 20, 15]))
    assert not check(data, decode=False).problems


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\xff\xd8 truncated jpeg"], ids=["empty", "text", "truncated"]
)
def test_unreadable_images(data, content):
    replace_file(data / "train2017" / "7.png", content)
    report = check(data)
    assert kinds(report).keys() == {"unreadable image"}
    assert "7.png" in kinds(report)["unreadable image"].examples[0]
    assert report.failed(strict=False)
    assert not check(data, decode=False).problems


def test_size_mismatch(data):
    good = cv2.imread(str(data / "val2017" / "7.png"))
    rotated = cv2.imencode(".png", cv2.rotate(good, cv2.ROTATE_90_CLOCKWISE))[1].tobytes()
    replace_file(data / "val2017" / "7.png", rotated)
    problem = kinds(check(data))["size mismatch"]
    assert problem.examples == (
        "val2017/7.png: the image is 48 x 64, annotated as 64 x 48 (rotated?)",
    )


def test_leaks_and_duplicates_are_named_in_pairs(data):
    train, val = data / "train2017", data / "val2017"
    similar = cv2.imencode(".jpg", cv2.imread(str(train / "4.png")))[1].tobytes()
    replace_file(val / "2.png", (train / "3.png").read_bytes())
    replace_file(val / "5.png", similar)
    replace_file(train / "9.png", (train / "8.png").read_bytes())
    replace_file(train / "20.png", (train / "20.png").read_bytes() + b"more")  # another content
    report = check(data)
    problems = {kind: problem.examples for kind, problem in kinds(report).items()}
    assert problems == {
        "same image in two splits": ("val2017/2.png = train2017/3.png",),
        "similar image in two splits": ("val2017/5.png ~ train2017/4.png",),
        "same image twice": ("train2017/9.png = train2017/8.png",),
    }
    assert not report.failed(strict=False)


def test_similar_images_in_one_split(data):
    train = data / "train2017"
    similar = cv2.imencode(".jpg", cv2.imread(str(train / "4.png")))[1].tobytes()
    replace_file(train / "50.png", similar)
    problems = kinds(check(data))
    assert problems.keys() == {"similar image twice"}
    assert problems["similar image twice"].examples == ("train2017/50.png ~ train2017/4.png",)


def relabel(count, category):
    def change(tree):
        for entry in tree["annotations"][:count]:
            entry["category_id"] = category

    return change


def test_classes(data):
    for split in ("train", "val"):
        edit(data, lambda tree: tree["categories"].append({"id": 3, "name": "owl"}), split)
    edit(data, relabel(1, 3), "val")
    edit(data, relabel(220, 1))
    edit(data, relabel(3, 2))
    problems = kinds(check(data, decode=False))
    assert problems.keys() == {"class only in val", "rare class"}
    assert problems["class only in val"].examples == ("owl: in val",)
    assert problems["rare class"].examples == ("dog: 3 training boxes",)


def test_imbalance(data):
    def crowd_of_dogs(tree):
        tree["annotations"] = [
            box(i, i % 100, [2 + i % 31, 3 + i // 100 * 0.9, 20, 15], 1 + (i >= 10))
            for i in range(1, 1200)
        ]

    edit(data, crowd_of_dogs)
    assert "class imbalance" not in kinds(check(data, decode=False))  # 9 cats are just rare
    edit(data, lambda tree: tree["annotations"][20].update(category_id=1))
    problems = kinds(check(data, decode=False))
    assert problems["class imbalance"].examples == ("cat: 10 boxes, dog: 1,189",)


def test_other_classes(data):
    edit(data, lambda tree: tree["categories"][1].update(name="wolf"), "val")
    problems = kinds(check(data, decode=False))
    assert "val: 2 classes, train: 2; label 1 is 'wolf', not 'dog'" in (
        problems["other classes"].examples
    )


def test_a_small_data_set_and_one_without_labels(data):
    def few(tree):
        tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] < 99]

    edit(data, few)
    edit(data, lambda tree: tree.update(annotations=[]), "val")
    problems = kinds(check(data, decode=False))
    assert problems["small data set"].examples[0].startswith("train: 99 labelled images")
    assert problems["no labelled image"].examples == ("val: none of 20 images has an object",)
    assert problems["no labelled image"].properties.severity == "error"


def test_crowds_are_not_objects(data):
    """Their size is no problem, and they are counted separately."""
    before = check(data, decode=False)

    def crowds(tree):
        whole = [box(900 + i, 3, [0, 0, 64, 48 - i], crowd=1) for i in range(2)]
        tree["annotations"] += whole

    edit(data, crowds)
    after = check(data, decode=False)
    assert after.problems == []
    assert after.splits[0] == replace(before.splits[0], crowds=2)


@pytest.mark.parametrize(("kind", "known"), [("label not parsed", True), ("moon phase", False)])
def test_findings_of_readers_become_problems(data, kind, known):
    splits = splits_of(data)
    finding = Finding(kind, "a.txt:3", "expected 5 numbers")
    splits["train"] = replace(splits["train"], findings=(finding,))
    (problem,) = check_labels(splits, size=64)
    assert (problem.kind, problem.count) == (kind, 1)
    assert problem.examples == ("a.txt:3: expected 5 numbers",)
    assert problem.properties == (KINDS[kind] if known else UNKNOWN)


def test_an_image_without_label_is_counted_once(data):
    edit(data, lambda tree: tree.update(annotations=tree["annotations"][:-4]))
    splits = splits_of(data)
    finding = Finding("image without label", "109.png", "no label file")
    splits["train"] = replace(splits["train"], findings=(finding,))
    (problem,) = check_labels(splits, size=64)
    assert problem.count == 2


def test_an_unreadable_image_that_reader_and_check_report_counts_once(data):
    replace_file(data / "train2017" / "7.png", b"broken")
    splits = splits_of(data)
    finding = Finding("unreadable image", "7.png", "no image")
    splits["train"] = replace(splits["train"], findings=(finding,))
    (problem,) = check_dataset("mine.yaml", splits, size=64).problems
    assert (problem.kind, problem.count, len(problem.examples)) == ("unreadable image", 1, 1)


def test_duplicate_boxes_equal_the_reference_implementation(rng, data):
    index = splits_of(data)["train"]
    boxes = np.repeat(index.boxes_xyxy[:22], 10, axis=0) + rng.uniform(0, 2, (220, 4))
    index = replace(
        index,
        starts=np.minimum(np.arange(len(index) + 1) * 10, 220),
        boxes_xyxy=boxes.astype(np.float32),
        labels=rng.integers(0, 2, 220),
    )
    seen, expected = set(), []
    for image in range(len(index)):
        for row in range(index.starts[image], index.starts[image + 1]):
            key = (image, index.labels[row], *np.round(index.boxes_xyxy[row]))
            expected.append(key in seen)
            seen.add(key)
    assert 0 < sum(expected) < 220
    assert find_duplicate_boxes(index).tolist() == expected


def test_workers_change_nothing(data):
    replace_file(data / "train2017" / "7.png", b"broken")
    one, four = (check(data, workers=n).as_dict() for n in (1, 4))
    assert one | {"looked_at": ""} == four | {"looked_at": ""}


def test_the_json_is_complete(data):
    edit(data, lambda tree: tree.update(annotations=tree["annotations"][:-10]))
    tree = json.loads(json.dumps(check(data).as_dict(), allow_nan=False))
    (problem,) = tree["problems"]
    assert (tree["errors"], tree["warnings"]) == (0, 1)
    assert (problem["kind"], problem["severity"]) == ("image without label", "warning")
    assert (problem["count"], problem["total"], problem["of"]) == (5, 130, "images")
    assert problem["examples"] == [f"train2017/{n}.png" for n in range(105, 110)]
    assert problem["advice"]
    assert tree["splits"][0]["boxes_by_class"] == {"cat": 105, "dog": 105}


def test_an_empty_split_can_be_reported(data):
    edit(data, lambda tree: tree.update(annotations=[], images=[]), "val")
    report = check(data)
    json.dumps(report.as_dict(), allow_nan=False)
    assert kinds(report).keys() == {"no labelled image"}


def test_only_examples_that_are_kept_are_computed():
    made = []
    problem = Problem.collect(
        "flat box", 10**6, 10**6, (made.append(n) or str(n) for n in range(10**6))
    )
    assert len(problem.examples) == len(made) == MAX_EXAMPLES


def test_at_the_start_of_a_run_few_problems_are_reported(data):
    options = {"size": 64, "anchors": ANCHORS, "ratio": 4.0}
    assert describe_label_problems("mine.yaml", splits_of(data), **options) == []
    edit(data, first_box(bbox=[0, 0, 64, 48]))  # one of 240: not worth a line
    edit(data, first_box(bbox=[4, 4, 0, 15]), "val")  # skipped, and named as such
    assert describe_label_problems("mine.yaml", splits_of(data), **options) == []
    lines = describe_label_problems(
        "mine.yaml", splits_of(data), **(options | {"anchors": ANCHORS * 9})
    )
    assert len(lines) == 2
    assert lines[0].startswith("labels: box without anchor: 25")
    assert lines[1].endswith("python tools/check_data.py mine.yaml")


def test_a_bad_data_set_has_five_lines_at_most(data):
    def spoil(tree):
        tree["categories"] += [{"id": n, "name": f"c{n}"} for n in range(3, 6)]
        tree["annotations"] = [a | {"bbox": [0, 0, 64, 48]} for a in tree["annotations"][:20]] * 2
        for number, entry in enumerate(tree["annotations"]):
            entry["id"] = number

    edit(data, spoil)
    lines = describe_label_problems(
        "m.yaml", splits_of(data), size=64, anchors=ANCHORS * 9, ratio=4.0
    )
    assert len(lines) == 5
    assert "more kinds of problems; for details and advice" in lines[-1]


def test_limits_are_in_pixels_of_the_training_image(data):
    """A box of 4 px in an image that is shrunk to a third is tiny."""
    edit(data, first_box(bbox=[4, 4, 4, 4]))
    assert "tiny box" not in kinds(check(data, decode=False))
    assert "tiny box" in kinds(check(data, decode=False, size=round(64 * 0.9 * TINY / 4)))
    assert 0.9 < HUGE < 1
