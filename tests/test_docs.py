"""README and docs/ say what works: their commands parse, their settings validate, their code runs."""

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

import detector
from detector.build import build_network
from detector.command_names import find_command
from detector.commands import cli
from detector.config import load_config
from detector.data.readers.data_yaml import DatasetConfig
from detector.errors import UserError
from detector.nn import ACTIVATIONS
from detector.study.search_space import format_words, read_space

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:detector|python tools/|torchrun .*-m detector) ?([a-z_-]+)(?:\.py)? (.*)")


def blocks(path):
    """(language, text) of each code block of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def find_all_commands():
    """(page, module, words) of each command line in a code block."""
    found = []
    for path in PAGES:
        for language, text in blocks(path):
            if language == "python":
                continue
            for line in text.splitlines():
                match = COMMAND.match(line.removeprefix("$ "))
                command = find_command(match[1]) if match else None
                if command is not None and match is not None:
                    words = shlex.split(match[2].split(" >")[0], comments=True)
                    found.append((path.name, command.module, words))
    return found


COMMANDS = find_all_commands()


def test_commands_are_found():
    assert len(COMMANDS) > 30
    assert {"train", "val", "detect", "check_data", "model_info"} <= {c[1] for c in COMMANDS}


@pytest.mark.parametrize(
    ("page", "module", "words"), COMMANDS, ids=[f"{p}: {m}" for p, m, _ in COMMANDS]
)
def test_a_command_has_these_options(page, module, words):
    """Every option exists, the config too, and every key=value is a setting that the schema accepts."""
    if "train.lrr=0.1" in words:  # the example of a mistake
        with pytest.raises(UserError, match=r"did you mean train\.lr\?"):
            load_config(words[1], words[2:])
        return
    parser = cli.capture_parser(importlib.import_module(f"detector.commands.{module}").main)
    args = vars(parser.parse_intermixed_args(words))
    overrides = [word for word in words if re.fullmatch(r"[a-z_.]+=.*", word)]
    cfg = args.get("cfg")
    if cfg is not None and not cfg.endswith(".cfg"):
        load_config(cfg, overrides)
    elif overrides:
        load_config("yolov4-pacsp-n-mish", overrides)
    for name in args.get("names") or []:
        assert name == "all" or name in ACTIVATIONS


SETTINGS = [
    (path.name, text) for path in PAGES for language, text in blocks(path) if language == "yaml"
]


@pytest.mark.parametrize(("page", "text"), SETTINGS, ids=[page for page, _ in SETTINGS])
def test_a_yaml_block_is_a_config_a_data_set_or_ranges(page, text, tmp_path):
    content = yaml.safe_load(text)
    path = tmp_path / "block.yaml"
    path.write_text(text)
    if {"root", "path"} & set(content):
        DatasetConfig.model_validate(tuples(content))
    elif all("." in key for key in content):
        for each in read_space(path):
            for value in each.list_ends():
                load_config("yolov4-pacsp-n-mish", format_words({each.key: value}))
    else:
        load_config(str(path))


def tuples(value):
    if isinstance(value, dict):
        return {str(key): tuples(inner) for key, inner in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def test_the_activation_of_the_guide_trains(monkeypatch):
    """The block as a user pastes it, then the name in a config."""
    (code,) = [text for kind, text in blocks(ROOT / "docs" / "activations.md") if kind == "python"]
    monkeypatch.setattr(ACTIVATIONS, "_entries", dict(ACTIVATIONS._entries), raising=False)
    exec(compile(code, "activations.md", "exec"), {"__name__": "guide"})
    config = load_config(
        "yolov4-pacsp-n-mish", ["model.activation={name: hardish, slope: 0.3}"]
    ).model
    model = build_network(config, 2)
    outputs = model(torch.zeros(2, 3, 64, 64))
    assert all(torch.isfinite(each).all() for each in outputs)


def test_links_of_the_readme_lead_somewhere():
    """mkdocs checks those inside docs/; these leave it."""
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
            assert "://" in link or (ROOT / link).exists(), f"{path.name}: {link}"
    anchors = re.findall(r"\(docs/(\w+)\.md#([\w-]+)\)", (ROOT / "README.md").read_text())
    for page, anchor in anchors:
        titles = re.findall(r"^#+ (.*)$", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)
        assert anchor in {title.lower().replace(" ", "-") for title in titles}


def test_the_docs_build_without_a_broken_link(tmp_path):
    build = pytest.importorskip("mkdocs.commands.build")
    config = pytest.importorskip("mkdocs.config")
    loaded = config.load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path))
    build.build(loaded)
    assert (tmp_path / "train" / "index.html").is_file()


@pytest.fixture(scope="module")
def world(tmp_path_factory, digits_root):
    """A folder in which the names of the guides exist: data sets, pictures, run folders, detections."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("mine.yaml", "coco.yaml", "digits.yaml"):
        (folder / name).write_text(f"format: coco\nroot: {digits_root}\nmirrors: false\n")
    (folder / "folder").mkdir()
    for target in ("photo.jpg", "folder/a.jpg"):
        shutil.copy(digits_root / "val2017" / "000001.jpg", folder / target)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        words = ["data.size=64", "data.workers=0", "train.batch_size=4", "train.precision=fp32"]
        run = detector.train(
            "yolov4-pacsp-n-mish",
            data="digits.yaml",
            out="runs/mine",
            **{
                "train.epochs": 1,
                **{k: yaml.safe_load(v) for k, v in (w.split("=") for w in words)},
            },
        )
    for name in ("mish", "leaky", "digits", "yolov4-pacsp-n-mish"):
        shutil.copytree(folder / run.folder, folder / "runs" / name)
    return folder


RUN = {"val", "detect", "check_data", "cluster_anchors", "convert_data", "model_info"}
RUNNABLE = [
    (page, module, words)
    for page, module, words in COMMANDS
    if module in RUN
    and page
    not in ("CONTRIBUTING.md", "classify.md")  # commands/test_val_command.py has classifiers
    and not re.search(r"\.(weights|onnx|xml)\b", " ".join(words))
]


@pytest.mark.parametrize(
    ("page", "module", "words"), RUNNABLE, ids=[f"{p}: {m}" for p, m, _ in RUNNABLE]
)
def test_a_command_runs(page, module, words, world, monkeypatch):
    """As it is written, with the smallest network at 64 pixels."""
    monkeypatch.chdir(world)
    words = [re.sub(r"^yolov4-pacsp.*\.yaml$", "yolov4-pacsp-n-mish.yaml", word) for word in words]
    words += ["data.size=64"] if module in ("cluster_anchors", "check_data") else []
    words = [re.sub(r"^(736|1280)$", "96", word) for word in words]
    shutil.rmtree(world / "data", ignore_errors=True)
    monkeypatch.setattr(sys, "argv", [f"detector {module}", *words])
    status = 0
    try:
        importlib.import_module(f"detector.commands.{module}").main()
    except SystemExit as end:
        status = end.code
    assert status == 0 or (module == "check_data" and status == 1)  # errors in the data


def test_python_of_the_guide_runs(world, monkeypatch):
    monkeypatch.chdir(world)
    codes = [text for kind, text in blocks(ROOT / "docs" / "python.md") if kind == "python"]
    for code in codes:
        block = compile(code, "python.md", "exec")
        if "supervision" not in code:  # optional, and needs a video
            exec(block, {"__name__": "guide"})
    assert (world / "found.jpg").is_file()
