"""Run folders of made-up runs, and a stand-in for the training command."""

import json
import sys
from pathlib import Path

from detector.engine import RunFolder
from detector.study.plan import Arm, Study

ARMS = (Arm("mish", ("model.activation=mish",)), Arm("relu", ("model.activation=relu",)))

# trains nothing: writes a row per epoch and a manifest; `fail` and `slow` in the folder above change that
FAKE_TRAIN = """
import json, os, pathlib, sys, time
words = sys.argv[1:]
resumed = "--resume" in words
folder = pathlib.Path(words[words.index("--resume" if resumed else "--out") + 1])
folder.mkdir(parents=True, exist_ok=True)
study = folder.parents[1]
with (study / "calls.txt").open("a") as file:
    shown = [os.environ.get(n, "") for n in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    file.write(json.dumps([folder.name, resumed, *shown, words]) + "\\n")
(folder / "last.pt").write_text("a checkpoint")
if (study / "slow").exists():
    time.sleep(60)
if (study / "fail").exists() and "relu" in folder.name:
    sys.exit("error: it fails")
seed = int(folder.name.partition("seed")[2].partition("-")[0] or 0)
ap = 0.5 + 0.01 * seed + (0.1 if folder.name.startswith("mish") else 0)
names = "top1,top5" if any("-cls" in word for word in words) else "AP,APs"
second = ap if names == "top1,top5" else -1
(folder / "results.csv").write_text(f"epoch,loss_cls,seconds,{names}\\n1,0.3,2.0,{ap},{second}\\n")
(folder / "manifest.json").write_text(json.dumps({"sessions": [{"outcome": "finished"}]}))
"""


def make_study(**changes) -> Study:
    values = {"cfg": "yolov4-pacsp-n-mish", "arms": ARMS, "seeds": (0, 1, 2), "baseline": "mish"}
    return Study(**{**values, **changes})


def write_fake_train(folder: Path) -> list[str]:
    """The command line that stands in for training."""
    script = folder / "fake_train.py"
    script.write_text(FAKE_TRAIN)
    return [sys.executable, "-S", str(script)]


def write_run(folder: RunFolder, scores: list[float], *, finished: bool = True) -> None:
    """A run folder with an AP per epoch; APs is undefined."""
    folder.path.mkdir(parents=True)
    rows = [f"{n},{1 / n},0.5,{9 + n},{ap},{ap + 0.1},-1" for n, ap in enumerate(scores, 1)]
    folder.results.write_text(
        "\n".join(["epoch,loss_box,loss_obj,seconds,AP,AP50,APs", *rows]) + "\n"
    )
    outcome = "finished" if finished else "stopped: SIGTERM"
    session = {"outcome": outcome, "peak_memory": 2**30}
    folder.manifest.write_text(json.dumps({"sessions": [session]}))
