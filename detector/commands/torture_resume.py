"""Kill a training run again and again, resume it each time, and compare its weights with those of an
uninterrupted run: they must be bitwise equal.

Runs are killed by SIGKILL at random instants, some inside each phase of a run: a step, the writing of a
checkpoint, an evaluation, the end of an epoch. The run's own events.jsonl shows the phase of each kill.
"""

import time
from pathlib import Path

from tqdm import tqdm

from detector.api.kill_and_resume import (
    PHASES,
    KillPlan,
    TrainCommand,
    kill_and_resume,
    measure_phases,
    read_events,
    read_outcome,
    wait_for_end,
)
from detector.commands import cli
from detector.commands.launch import make_train_command, make_train_environment
from detector.engine import RunFolder
from detector.errors import UserError

# Short, but with everything that a resumed run has to restore: mosaic, workers, gradient accumulation,
# EMA. bf16 works on any CPU.
WORDS = (
    *("data.size=96", "data.workers=2", "train.threads=1", "train.epochs=4", "train.batch_size=8"),
    *("train.nominal_batch=16", "train.eval_every=1", "train.checkpoint_every=2"),
    "train.precision=bf16",
)


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "", "python tools/torture_resume.py --kills 20 --processes 2"
    )
    parser.add_argument("--cfg", default="yolov4-pacsp-n-mish.yaml")
    parser.add_argument("--data", default="digits.yaml")
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default 20)")
    parser.add_argument(
        "--each", type=int, default=3, help="minimum kills inside each phase (default 3)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="ranks; torchrun starts more than one"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the instants")
    parser.add_argument("--out", type=Path, default=Path("runs/torture"))
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="added to " + " ".join(WORDS)
    )
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        raise UserError(f"{args.out}: is not empty; give another --out")

    words = ("--cfg", args.cfg, "--data", args.data, *WORDS, *args.overrides)
    train = TrainCommand(make_train_command(args.processes), words, make_train_environment())
    uninterrupted = RunFolder(args.out / "untouched")
    start = time.monotonic()
    wait_for_end(train.start(uninterrupted), uninterrupted)
    duration = time.monotonic() - start
    expected = read_outcome(uninterrupted)
    phases = measure_phases(read_events(uninterrupted))
    print(f"uninterrupted: {duration:.0f} s, {len(expected[1])} epochs, fingerprint {expected[0]}")

    plan = KillPlan(args.kills, args.each, args.seed)
    with tqdm(total=args.kills, desc="kills", unit="kill", disable=None) as bar:
        report = kill_and_resume(
            train,
            plan,
            args.out,
            duration=duration,
            phases=phases,
            epochs=len(expected[1]),
            bar=bar,
        )
    hits, victims = report.hits, report.victims
    where = ", ".join(f"{hits[phase]} in {phase}" for phase in (*PHASES, "start") if hits[phase])
    print(f"kills: {report.kills} ({where}), and {hits['']} after a run had ended")
    different = [victim.path.name for victim in victims if read_outcome(victim) != expected]
    if different:
        raise UserError(
            f"weights or results.csv differ from the uninterrupted run's: {', '.join(different)}"
        )
    print(f"{len(victims)} runs ended with bitwise equal weights, optimizer and results.csv")


if __name__ == "__main__":
    cli.run(main)
