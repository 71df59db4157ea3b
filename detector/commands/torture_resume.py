"""Kill a training run again and again, resume it each time, and compare its weights with those of a run
that nobody touched: equal, to the bit.

The kills are SIGKILL, at random instants, some of them inside each phase of a run: a step, the writing of
a checkpoint, an evaluation, the end of an epoch. The run's own events.jsonl proves where each one hit.
"""

import contextlib
import csv
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from detector.commands import cli
from detector.engine import RunFolder, load_checkpoint
from detector.engine.checkpoint import digest
from detector.errors import UserError

PHASES: tuple[str, ...] = ("step", "checkpoint", "evaluation", "epoch end")
# Short, and with all that a resume has to bring back: mosaic, workers, accumulation, averaged weights;
# in bf16 on any CPU.
WORDS = (
    *("data.size=96", "data.workers=2", "train.threads=1", "train.epochs=4", "train.batch_size=8"),
    *("train.nominal_batch=16", "train.eval_every=1", "train.checkpoint_every=2"),
    "train.precision=bf16",
)


def read_events(folder: RunFolder) -> list[dict[str, Any]]:
    """The whole lines of events.jsonl; one that a kill cut short did not happen."""
    events = []
    lines = folder.events.read_text("utf-8").splitlines() if folder.events.exists() else []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def phase_of(event: dict[str, Any]) -> str:
    """The phase that a run is in after this event."""
    if event["event"] == "evaluation":
        return "evaluation"
    if event["event"] == "epoch" or event.get("why") in ("best", "epoch"):
        return "epoch end"
    return "checkpoint" if event["event"] == "checkpoint" else "step"


def lengths_of_phases(events: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that each phase takes in the middle."""
    taken: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for event, following in itertools.pairwise(events):
        taken[phase_of(event)].append(following["time"] - event["time"])
    return {phase: statistics.median(times) for phase, times in taken.items()}


@dataclass(frozen=True, slots=True)
class Command:
    """How a run is started; `words` are those of a new one."""

    words: tuple[str, ...]
    processes: int

    def start(self, folder: RunFolder) -> subprocess.Popen[bytes]:
        """A new run in the folder, or the rest of the one there."""
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        launcher = [*launch, str(self.processes)] if self.processes > 1 else []
        resume = folder.last.exists() or folder.previous.exists()
        words = (
            ["--resume", str(folder.path)] if resume else [*self.words, "--out", str(folder.path)]
        )
        if not resume and folder.path.exists():  # killed before its first checkpoint
            for path in folder.path.iterdir():
                path.unlink()
        train = str(Path(__file__).with_name("train.py"))
        with (folder.path.parent / f"{folder.path.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *launcher, train, *words],
                stdout=log,
                stderr=log,
            )


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and all that it has started; torchrun gives each of its a session of its own,
    so that a signal for its group does not reach them. Returns when none of them runs any more.
    """
    process.send_signal(signal.SIGSTOP)  # so that it starts no other one meanwhile
    family = [process.pid]
    for pid in family:  # it grows
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                family += map(int, children.read_text().split())
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(map(runs, family)):
        time.sleep(0.001)


def runs(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(process: subprocess.Popen[bytes], folder: RunFolder, phase: str, after: float) -> str:
    """Kills a run `after` seconds of a phase, or of its start; where it really was, "" if at its end."""
    before = len(read_events(folder))
    while phase != "any" and process.poll() is None:
        events = read_events(folder)
        if len(events) > before and phase_of(events[-1]) == phase:
            break
        time.sleep(0.001)
    end = time.monotonic() + after
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.001)
    ended = process.poll() is not None
    kill_family(process)
    if ended:
        return ""
    events = read_events(folder)
    return phase_of(events[-1]) if len(events) > before else "start"


def outcome(folder: RunFolder) -> tuple[str, list[dict[str, str]]]:
    """A fingerprint of all weights and of the optimiser, and results.csv without its times."""
    training = load_checkpoint(folder.last)["training"]
    state = {name: training[name] for name in ("model", "average", "optimizer", "scaler")}
    with folder.results.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return digest(state), rows


def finish(process: subprocess.Popen[bytes], folder: RunFolder) -> None:
    """Waits for a run to come to its end.

    Raises:
        UserError: it fails by itself.
    """
    if process.wait() != 0:
        raise UserError(
            f"the run failed by itself; see {folder.path.parent}/{folder.path.name}.log"
        )


def main() -> None:
    parser = cli.parser(__doc__ or "", "python tools/torture_resume.py --kills 20 --processes 2")
    parser.add_argument("--cfg", default="yolov4-pacsp-n-mish.yaml")
    parser.add_argument("--data", default="digits.yaml")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=3, help="kills inside each phase, at least")
    parser.add_argument("--processes", type=int, default=1, help="more than one: by torchrun")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--out", type=Path, default=Path("runs/torture"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="; ".join(WORDS))
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        raise UserError(f"{args.out}: is not empty; give another --out")

    words = ("--cfg", args.cfg, "--data", args.data, *WORDS, *args.overrides)
    command = Command(words, args.processes)
    untouched = RunFolder(args.out / "untouched")
    started = time.monotonic()
    finish(command.start(untouched), untouched)
    whole = time.monotonic() - started
    wanted, lengths = outcome(untouched), lengths_of_phases(read_events(untouched))
    print(f"untouched: {whole:.0f} s, {len(wanted[1])} epochs, fingerprint {wanted[0]}")

    draw = random.Random(args.seed)
    hits: Counter[str] = Counter()
    victims = [RunFolder(args.out / "victim-1")]
    kills = 0
    with tqdm(total=args.kills, desc="kills", unit="kill", disable=None) as bar:
        while kills < args.kills:
            left = args.kills - kills
            missing = [phase for phase in PHASES for _ in range(args.each - hits[phase])]
            phase = draw.choice(missing) if len(missing) >= left else "any"
            after = draw.uniform(0, whole if phase == "any" else lengths[phase])
            hit = kill(command.start(victims[-1]), victims[-1], phase, after)
            hits[hit] += 1
            kills += bool(hit)
            bar.update(bool(hit))
            if not hit:  # it came to its end first: the next one begins
                victims.append(RunFolder(args.out / f"victim-{len(victims) + 1}"))
            if kills == args.kills and missing and len(missing) > (hit in missing):
                args.kills += 1  # until each phase has had its share
                bar.total = args.kills
    if not victims[-1].results.exists() or len(outcome(victims[-1])[1]) < len(wanted[1]):
        finish(command.start(victims[-1]), victims[-1])

    where = ", ".join(f"{hits[phase]} in {phase}" for phase in (*PHASES, "start") if hits[phase])
    print(f"{kills} kills: {where}; {hits['']} came after the end of a run")
    different = [victim.path.name for victim in victims if outcome(victim) != wanted]
    if different:
        raise UserError(f"not the same weights or results.csv: {', '.join(different)}")
    print(f"{len(victims)} runs ended with the same weights, optimiser and results.csv, to the bit")


if __name__ == "__main__":
    cli.run(main)
