"""The program `detector`: every tool is one of its commands, with the same options."""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

import detector as package
from detector import command_names
from detector.command_names import COMMANDS, find_command, format_command
from detector.commands import completion, program
from detector.errors import UserError
from tests.commands.running import ROOT

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


@pytest.fixture
def detector(monkeypatch, capsys, tmp_path):
    """detector("train", "--cfg", ...) -> (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/detector", *map(str, words)])
        status = 0
        try:
            program.main()
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_every_tool_is_a_command():
    """A new tool: one line in COMMANDS."""
    assert sorted(command.module for command in COMMANDS) == TOOLS
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_only_runs_its_module(name):
    lines = [line for line in (ROOT / "tools" / f"{name}.py").read_text().splitlines() if line]
    assert len(lines) == 4
    assert lines[-1] == f"    cli.run({name}.main)"


def test_the_help_lists_each_command_in_a_line(detector):
    status, out, _ = detector("--help")
    assert status == 0
    for command in COMMANDS:
        line = next(line for line in out.splitlines() if line.split()[:1] == [command.name])
        assert line.endswith(command.summary)
        assert len(line) <= 80
    assert detector() == (2, out, "")


def test_the_help_loads_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "detector", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("usage: detector")
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "detector.command_names" in loaded
    assert not loaded & {"torch", "numpy", "detector.commands.cli"}


def test_the_version_is_that_of_the_package(detector):
    assert package.__version__ == importlib.metadata.version("detector")
    assert detector("--version") == (0, f"detector {importlib.metadata.version('detector')}\n", "")


def test_an_unknown_command_is_one_line(detector):
    status, out, err = detector("trian", "--cfg", "x.yaml")
    assert (status, out) == (2, "")
    assert err == "error: trian: no such command; detector --help lists them; did you mean train?\n"


def test_a_command_runs_under_its_name(detector, tmp_path):
    words = ["--cfg", "yolov4-pacsp-n-mish", "--size", "64", "--json", "cost.json"]
    for name in ("info", "model-info", "model_info"):
        status, out, err = detector(name, *words)
        assert (status, err) == (0, "")
        assert "1,366,613" in out
    content = json.loads((tmp_path / "cost.json").read_text())
    assert sum(stage["parameters"] for stage in content["stages"]) == 1_366_613
    assert content["stages"][0]["shapes"][0][1:] == [64, 64]


def test_help_and_errors_name_the_program(detector):
    status, out, _ = detector("check-data", "--help")
    assert status == 0
    assert out.startswith("usage: detector check-data ")
    assert "detector check-data mine.yaml" in out.split("example:")[1]
    assert "python tools/" not in out
    status, _, err = detector("info")
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith("see detector info --help\n")


def test_messages_name_the_command_as_the_user_runs_commands(monkeypatch, tmp_path):
    words = ("check_data", "my data.yaml")
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    assert format_command(*words) == "python tools/check_data.py 'my data.yaml'"
    monkeypatch.setattr(command_names, "TOOLS", tmp_path / "tools")  # as installed from a wheel
    assert format_command(*words) == "detector check-data 'my data.yaml'"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["detector train", "--cfg", "x.yaml"])
    assert format_command(*words) == "detector check-data 'my data.yaml'"
    assert format_command("cluster_anchors") == "detector anchors"


def test_completion_knows_every_command_and_option():
    parser = completion.collect_parsers()
    parsers = parser._subparsers._group_actions[0].choices
    assert list(parsers) == [command.name for command in COMMANDS]
    options = set(parsers["train"]._option_string_actions)
    assert {"--cfg", "--data", "--resume", "--seeds", "--epochs", "--help"} <= options


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(detector, shell):
    status, out, err = detector("completion", shell)
    assert status == 0, err
    assert "check-data" in out
    assert "--want-precision" in out


def test_bash_completes(detector, tmp_path):
    script = tmp_path / "completion.sh"
    script.write_text(detector("completion", "bash")[1])
    asked = (
        f"source {script}; COMP_WORDS=(detector val --want-p); COMP_CWORD=2; COMP_LINE='detector val "
        "--want-p'; _shtab_detector; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert done.stdout == "--want-precision\n", done.stderr


def test_unreadable_list_of_weights(detector, tmp_path):
    status, _, err = detector("weights", "--json", "/dev/null/list.json")
    assert (status, err.count("\n")) == (2, 1)
    assert "list.json: cannot be written" in err
    status, out, _ = detector("weights", "--json", "list.json")
    names = [entry["name"] for entry in json.loads((tmp_path / "list.json").read_text())]
    assert names == [line.split()[0] for line in out.splitlines()]


def test_find_command():
    assert find_command("cluster_anchors") is find_command("anchors")
    assert find_command("none") is None
    with pytest.raises(UserError, match="no such command"):
        program.reject_command("none")
