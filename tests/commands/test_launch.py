"""What --launch prints, run: by a stand-in for sbatch, and as the container of each pod would."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from detector.commands import ablate
from detector.study.plan import load_study
from tests.study.made_up import write_fake_train

ARMS = "model.activation=mish,{name: leaky_relu, negative_slope: 0.2}"  # to be quoted
WORDS = ["--cfg", "yolov4-pacsp-n-mish", "--vary", ARMS, "--seeds", 3, "train.epochs=1"]

# stands in for a command: writes down its arguments
RECORD = """#!/bin/sh
exec {python} -S -c 'import json, os, sys
with open("{calls}", "a") as file:
    file.write(json.dumps([os.getcwd(), os.environ.get("PYTHONPATH"), *sys.argv[1:]]) + "\\n")' "$@"
"""

# runs the script that it is given as Slurm does, task by task
SBATCH = """#!/bin/bash
script=$(mktemp); cat "$1" > "$script"
last=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for task in $(seq 1 "$last"); do SLURM_ARRAY_TASK_ID=$task bash "$script" || exit 1; done
"""


def write_command(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def recorder(tmp_path):
    """A command that records its calls, and the file of the calls."""
    calls = tmp_path / "calls.txt"
    text = RECORD.format(python=sys.executable, calls=calls)
    return write_command(tmp_path / "bin" / "detector", text), calls


def read_calls(calls):
    return [json.loads(line) for line in calls.read_text().splitlines()]


def finish_study(fake_study, calls, tool):
    """Runs in this process what each task would; all runs are then finished."""
    for words in calls:
        status, out, err = tool("ablate", *words)
        assert status == 0, err
    assert len(load_study(fake_study).list_runs()) == 6
    assert "runs are not finished" not in out


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "make_train_command", lambda: write_fake_train(tmp_path))
    monkeypatch.setattr("detector.study.runner.POLL", 0.01)


def test_a_slurm_array(tool, tmp_path, recorder, trained, monkeypatch):
    command, calls = recorder
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(command))
        status, script, err = tool(
            *("ablate", *WORDS, "--out", "a study", "--launch", "slurm", "--shards", 2),
            *("--time-limit", "7.5h", "--gpus", 2, "--all-pairs"),
        )
    assert status == 0, err
    lines = script.splitlines()
    assert {"#SBATCH --array=1-2", "#SBATCH --gpus=2", "#SBATCH --time=7:33:00"} <= set(lines)
    assert f"#SBATCH --output={tmp_path / 'a study'}/slurm-%A_%a.log" in lines
    (tmp_path / "study.sbatch").write_text(script)
    sbatch = write_command(tmp_path / "bin" / "sbatch", SBATCH)
    path = f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sbatch", tmp_path / "study.sbatch"], check=True, cwd="/", env={**os.environ, "PATH": path}
    )
    found = read_calls(calls)
    assert [each[-1] for each in found] == ["1/2", "2/2"]
    for folder, python_path, *words in found:
        assert folder == str(tmp_path)
        assert python_path.split(os.pathsep)[0] == str(ablate.TOOLS.parent)
        assert words[:3] == ["-m", "detector", "ablate"]
        assert words[words.index("--vary") + 1] == ARMS
        assert "--all-pairs" in words
    finish_study(tmp_path / "a study", [words[3:] for _, _, *words in found], tool)


def test_a_kubernetes_job(tool, tmp_path, recorder, trained):
    command, calls = recorder
    status, text, err = tool(
        *("ablate", *WORDS, "--out", "st_udy", "--launch", "k8s", "--claim", "disk:/studies"),
        *("--image", "registry/detector:1", "--cpus", 8),
    )
    assert status == 0, err
    job = yaml.safe_load(text)
    assert (job["kind"], job["metadata"]["name"]) == ("Job", "st-udy")
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 3)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": 8, "nvidia.com/gpu": 1}
    assert container["workingDir"] == container["volumeMounts"][0]["mountPath"] == "/studies"
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    for index in range(3):
        variables = {**os.environ, "PATH": path, "JOB_COMPLETION_INDEX": str(index)}
        subprocess.run(container["command"], check=True, cwd=tmp_path, env=variables)
    found = read_calls(calls)
    assert [each[-1] for each in found] == ["1/3", "2/3", "3/3"]
    finish_study(tmp_path / "st_udy", [words[1:] for _, _, *words in found], tool)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--launch", "k8s"], "--launch k8s needs --claim NAME:/MOUNT"),
        (["--launch", "k8s", "--claim", "disk"], "--launch k8s needs --claim NAME:/MOUNT"),
        (["--launch", "slurm", "--shards", "0"], "--shards and --cpus are 1 or more"),
    ],
)
def test_mistakes(tool, tmp_path, words, expected):
    status, out, err = tool("ablate", *WORDS, *words)
    assert (status, out) == (2, "")
    assert expected in err
    assert not (tmp_path / "runs").exists()
