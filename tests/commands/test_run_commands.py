"""Runs that are stopped, killed and limited from outside; and the options that start them."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from detector.api.kill_and_resume import is_running, kill_process_tree
from detector.commands.cli import FLAGS
from detector.engine import Console, RunFolder, load_checkpoint
from detector.engine.checkpoint import digest
from tests.commands.running import ROOT

TRAIN = ROOT / "tools" / "train.py"
SMALL = [
    *("--cfg", "yolov4-pacsp-n-mish", "data.size=64", "train.threads=1", "train.precision=fp32"),
    *(
        "train.batch_size=4",
        "train.nominal_batch=8",
        "train.device=cpu",
        "train.warmup_min_steps=2",
    ),
]


def start(*words, launcher=(), **options):
    return subprocess.Popen(
        [sys.executable, *launcher, TRAIN, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process, seconds=120):
    """Exit status, stdout, stderr."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_for(folder, event, process, times=1):
    """Waits until events.jsonl has the event `times` times."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if folder.events.exists():
            lines = folder.events.read_text().split("\n")[:-1]
            if [json.loads(line)["event"] for line in lines].count(event) >= times:
                return
        time.sleep(0.002)
    pytest.fail(f"{event} did not come: {process.communicate()}")


@contextmanager
def largest_file(size):
    """No file can grow beyond `size` bytes: to the program, a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fingerprint(folder):
    training = load_checkpoint(folder.last)["training"]
    return digest({name: training[name] for name in ("model", "average", "optimizer")})


def test_after_sigterm_and_a_full_disk_the_weights_are_the_same(tool, digits_yaml, tmp_path):
    """Stopped by SIGTERM, resumed on a disk that is full, resumed once more: the same weights."""
    words = [*SMALL, "--data", digits_yaml, "--workers", "1", "--epochs", "3"]
    status, _, err = tool("train", *words, "--name", "whole")
    assert status == 0, err

    stopped = RunFolder(tmp_path / "runs" / "stopped")
    process = start(*words, "--out", "runs/stopped", cwd=tmp_path)
    wait_for(stopped, "losses", process)
    process.send_signal(signal.SIGTERM)
    status, out, err = finish(process)
    assert status == 128 + signal.SIGTERM, err
    assert out.endswith("resume with: python tools/train.py --resume runs/stopped\n")
    assert "stopped (SIGTERM)" in out
    assert load_checkpoint(stopped.last)["training"]["progress"]["epoch"] < 2

    before = fingerprint(stopped)
    limit = stopped.last.stat().st_size // 2

    resume = ["--resume", "runs/stopped"]
    with largest_file(limit):
        status, _, err = tool("train", *resume)
    assert status == 2
    first, second = err.splitlines()
    assert first.startswith(
        "error: runs/stopped/last.pt: the checkpoint cannot be written: File too"
    )
    assert second == (
        "error: the last good checkpoint is runs/stopped/last.pt; "
        "resume with: python tools/train.py --resume runs/stopped"
    )
    assert fingerprint(stopped) == before

    status, _, err = tool("train", *resume)
    assert status == 0, err
    assert fingerprint(stopped) == fingerprint(RunFolder(tmp_path / "runs" / "whole"))
    rows = stopped.results.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


@pytest.mark.slow
def test_torture_with_a_kill(tool, digits_yaml, tmp_path):
    """A SIGKILL at a random instant; `python tools/torture_resume.py` has twenty, in every phase."""
    status, out, err = tool(
        *("torture_resume", "--kills", 1, "--each", 0, "--data", digits_yaml, "--out", "torture"),
        *("data.size=64", "train.epochs=2", "train.device=cpu"),
        *("data.workers=1", "train.warmup_min_steps=2"),
    )
    assert status == 0, err
    assert "kills: 1 (" in out
    assert "ended with bitwise equal weights, optimizer and results.csv" in out


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_the_torture_kills_all_processes_of_torchrun():
    """A child in a session of its own, which a signal for the parent's group does not reach."""
    child = "import subprocess; p = subprocess.Popen(['sleep', '99'], start_new_session=True); "
    child += "print(p.pid, flush=True); p.wait()"
    command = [sys.executable, "-c", child]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        kill_process_tree(parent)
    assert not is_running(pid)
    assert parent.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(tool, digits_yaml, tmp_path):
    words = [*SMALL, "--data", digits_yaml, "--workers", "0", "--epochs", "40", "--name", "a"]
    process = start(*words, "train.checkpoint_every=1", cwd=tmp_path)
    folder = RunFolder(tmp_path / "runs" / "a")
    try:
        wait_for(folder, "written", process, 1)
        status, _, err = tool("train", "--resume", "runs/a")
    finally:
        process.kill()
        finish(process, 60)
    assert status == 2
    assert err.startswith(
        f"error: runs/a: another process is training in this folder (process {process.pid} on "
    )
    assert (
        tool("train", "--resume", "runs/a", "--batch-limit", "1")[0] == 0
    )  # it died with its lock


@pytest.mark.slow
def test_torchrun_restarts_after_a_killed_rank_and_the_run_resumes(digits_yaml, tmp_path):
    """torchrun restarts all ranks of a job, and they resume from its checkpoint."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*SMALL, "--data", digits_yaml, "--workers", "0", "--epochs", "4"]
    words += ["train.checkpoint_every=1"]
    status, _, err = finish(
        start(*words, "--out", "runs/whole", launcher=launcher, cwd=tmp_path), 240
    )
    assert status == 0, err

    folder = RunFolder(tmp_path / "runs" / "killed")
    launcher += ["--max-restarts", "1"]
    process = start(
        *[*words, "data.cache=ram", "--out", "runs/killed"],  # kept where both ranks find it
        launcher=launcher,
        cwd=tmp_path,
        start_new_session=True,
    )
    wait_for(folder, "written", process, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {
        int(pid): environment["RANK"]
        for pid in children
        if "RANK" in (environment := environment_of(int(pid)))
    }
    os.kill(next(pid for pid, rank in ranks.items() if rank == "1"), signal.SIGKILL)
    status, out, err = finish(process, 240)
    assert status == 0, err
    assert "resuming in epoch" in out
    whole = RunFolder(tmp_path / "runs" / "whole")
    assert fingerprint(folder) == fingerprint(whole)
    assert [path.name for path in (tmp_path / "runs").iterdir()].count("killed-2") == 0


def environment_of(pid):
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def test_a_recorded_number_of_chunks_is_used_by_the_resumed_run(tool, digits_yaml, tmp_path):
    """One of several ranks records it when it runs out of memory."""
    words = [*SMALL, "--data", digits_yaml, "--workers", "0", "--epochs", "1", "--name", "a"]
    assert tool("train", *words, "--time-limit", "0s")[0] == 0  # stops after the first step
    folder = RunFolder(tmp_path / "runs" / "a")
    assert folder.num_chunks == 1
    folder.write_num_chunks(2)
    assert tool("train", "--resume")[0] == 0  # the newest
    assert load_checkpoint(folder.last)["training"]["progress"]["parts"] == 2


@pytest.mark.slow
def test_seeds(tool, digits_yaml, tmp_path):
    """Two runs; stopped in the first, finished by the same command and --resume, to the same weights."""
    words = [*SMALL, "--data", digits_yaml, "--workers", "0", "--epochs", "1", "--seeds", 3, 5]
    status, out, err = tool("train", *words, "--name", "whole")
    assert status == 0, err
    whole = [RunFolder(tmp_path / "runs" / f"whole-seed{seed}") for seed in (3, 5)]
    configs = [load_checkpoint(folder.best)["config"] for folder in whole]
    assert [config["train"]["seed"] for config in configs] == [3, 5]
    assert fingerprint(whole[0]) != fingerprint(whole[1])
    scores = [load_checkpoint(folder.best)["metrics"]["AP"] for folder in whole]
    mean, deviation = sum(scores) / 2, abs(scores[0] - scores[1]) / 2**0.5
    wanted = (
        f"AP by seed  3: {scores[0]:.4f}  5: {scores[1]:.4f}  "
        f"mean {mean:.4f}, standard deviation {deviation:.4f}"
    )
    assert out.splitlines()[-1] == wanted

    words += ["--name", "stopped"]
    stopped = [RunFolder(tmp_path / "runs" / f"stopped-seed{seed}") for seed in (3, 5)]
    status, out, err = tool("train", *words, "--batch-limit", 1)
    assert status == 0, err
    assert out.splitlines()[-1].endswith("--name stopped --batch-limit 1 --resume")
    assert not stopped[1].path.exists()
    for sessions in ("resuming in epoch 1 after batch 1", "already finished: 1 of 1 epochs"):
        status, out, err = tool("train", *words, "--resume")
        assert status == 0, err
        assert out.count(sessions) == (2 if "finished" in sessions else 1)
        assert out.splitlines()[-1] == wanted
        assert list(map(fingerprint, stopped)) == list(map(fingerprint, whole))
    assert len(list((tmp_path / "runs").iterdir())) == 4

    status, _, err = tool("train", *words, "--resume", "train.lr=0.05")
    assert status == 2
    assert err == (
        "error: runs/stopped-seed3: its settings differ from this command's (train.lr: 0.16, now 0.05); "
        "give the same settings, or start a new run without --resume\n"
    )


@pytest.mark.slow
def test_the_time_limit_is_shared_by_all_seeds(tool, digits_yaml, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Console, "on_epoch", lambda *_: now.__setitem__(0, now[0] + 30))
    words = [*SMALL, "--data", digits_yaml, "--workers", "0", "--epochs", "1", "--name", "a"]
    status, out, _ = tool("train", *words, "--seeds", 0, 1, 2, "--time-limit", "40s")
    assert status == 0
    assert "stopped (time limit); resume with: " in out
    last = [RunFolder(tmp_path / "runs" / f"a-seed{seed}").last for seed in range(3)]
    assert [load_checkpoint(path)["epoch"] for path in last] == [1, 1, 0]


def test_changes_since_a_run_was_stopped_are_reported_or_refused(tool, digits_yaml, tmp_path):
    """Its config.yaml: reported. Labels: reported. The number of images: refused."""
    root = tmp_path / "digits"
    shutil.copytree(yaml.safe_load(digits_yaml.read_text())["root"], root)
    digits_yaml.write_text(f"format: coco\nroot: {root}\n")
    words = [*SMALL, "--data", digits_yaml, "--workers", "0", "--epochs", "1", "--name", "a"]
    assert tool("train", *words, "--batch-limit", 2)[0] == 0
    folder = RunFolder(tmp_path / "runs" / "a")
    before = folder.last.read_bytes()
    folder.config.write_text(
        folder.config.read_text().replace("\n  epochs: 1\n", "\n  epochs: 7\n")
    )
    annotations = root / "annotations" / "instances_train2017.json"
    tree = json.loads(annotations.read_text())
    tree["annotations"].pop()
    annotations.write_text(json.dumps(tree))
    status, out, err = tool("train", "--resume", "runs/a")
    assert status == 0, err
    lines = [
        "runs/a/config.yaml is ignored when a run resumes; the settings in its checkpoint count "
        "(train.epochs: 1, now 7)",
        "file names, boxes or classes of the train split have changed: the run will differ from "
        "one that was never interrupted",
    ]
    assert set(lines) <= set(out.splitlines())
    assert set(lines) <= set(json.loads(folder.manifest.read_text())["sessions"][-1]["notes"])
    assert load_checkpoint(folder.last)["epoch"] == 1

    folder.last.write_bytes(before)
    tree["images"].pop()
    known = {image["id"] for image in tree["images"]}
    tree["annotations"] = [each for each in tree["annotations"] if each["image_id"] in known]
    annotations.write_text(json.dumps(tree))
    status, _, err = tool("train", "--resume", "runs/a")
    assert status == 2
    assert err.startswith(
        "error: runs/a/last.pt: it was trained on 12 images, but the data set now has 11;"
    )
    assert err.count("\n") == 1


def test_no_run_to_resume(tool):
    status, _, err = tool("train", "--resume")
    assert (status, err) == (
        2,
        "error: runs: no run here has a last.pt to resume from; name a run folder\n",
    )
    status, _, err = tool("train", "--resume", "--epochs", "3")
    assert status == 2
    assert (
        "--resume alone resumes the newest run as it is; it takes no settings, unless --cfg" in err
    )


def test_the_newest_run_of_a_command(tmp_path):
    """Numbered folders belong to the same command, longer names do not; a run has a checkpoint."""
    assert RunFolder.find_newest_named(tmp_path / "a") is None
    for age, name in enumerate(["a-3", "a", "a-2", "ab", "a-b", "a-b-2"]):
        (tmp_path / name).mkdir()
        if name != "a-3":
            file = tmp_path / name / ("previous.pt" if name == "a-2" else "last.pt")
            file.touch()
            os.utime(file, (age, age))
    for wanted, expected in (("a", "a-2"), ("a-b", "a-b-2"), ("b", None)):
        newest = RunFolder.find_newest_named(tmp_path / wanted)
        assert (newest and newest.path.name) == expected
    assert RunFolder.find_newest(tmp_path).path.name == "a-b-2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0", "0"], "whole numbers, each once"),
        (["--seeds", "0", "train.seed=1"], "--seeds and train.seed= set the same thing"),
        (["--name", "a", "--out", "b"], "--out and --name set the same thing"),
        (
            ["--seeds"],
            "error: argument --seeds: expected at least one argument; see train.py --help",
        ),
        (
            ["--time-limit", "5"],
            "error: '5' is not a duration; expected one such as 90s, 10m or 1.5h",
        ),
        (
            ["train.checkpoint_every=10x"],
            "train.checkpoint_every: '10x' is not a duration; expected",
        ),
        (
            ["train.checkpoint_every=1.5"],
            "train.checkpoint_every: should be a valid integer, not 1",
        ),
        (["--batch", "x"], "train.batch_size: should be 'auto', not 'x'"),
        (["--batch", "0"], "train.batch_size: should be greater than or equal to 1, not 0"),
        (["--device", "cuda:77"], "try cpu"),
        *(
            ([f"--{flag}", "1", f"{key}=1"], f"--{flag} and {key}=")
            for flag, (key, _) in FLAGS.items()
        ),
    ],
)
def test_contradictory_or_invalid_options(tool, digits_yaml, words, message):
    status, _, err = tool("train", "--cfg", "yolov4-pacsp-n-mish", "--data", digits_yaml, *words)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_resume_refuses_options_that_are_settings(tool):
    for flag in FLAGS:
        status, _, err = tool("train", "--resume", "runs/a", f"--{flag}", "1")
        assert status == 2
        assert "--resume runs/a resumes that run as it is; it takes no settings" in err
