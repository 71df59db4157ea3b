"""Kill a training run again and again, resume it each time, and compare its weights with those of a run
that nobody killed: they must be equal, to the bit.

The kills are SIGKILL, at random instants, some of them inside each phase of a run: a step, the writing of
a checkpoint, an evaluation, the end of an epoch. The run's own events.jsonl shows where each one hit.
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
from detector.commands.launch import train_command, train_environment
from detector.engine import RunFolder
from detector.errors import UserError

# Short, and with all that a resumed run has to restore: mosaic, workers, gradient accumulation, EMA;
# bf16 works on any CPU.
WORDS = (
    *("data.size=96", "data.workers=2", "train.threads=1", "train.epochs=4", "train.batch_size=8"),
    *("train.nominal_batch=16", "train.eval_every=1", "train.checkpoint_every=2"),
    "train.precision=bf16",
)


def main() -> None:
    parser = cli.parser(__doc__ or "", "python tools/torture_resume.py --kills 20 --processes 2")
    parser.add_argument("--cfg", default="yolov4-pacsp-n-mish.yaml")
    parser.add_argument("--data", default="digits.yaml")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=3, help="kills inside each phase, at least")
    parser.add_argument("--processes", type=int, default=1, help="ranks, started by torchrun")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants")
    parser.add_argument("--out", type=Path, default=Path("runs/torture"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="; ".join(WORDS))
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if any(args.out.iterdir()):
        raise UserError(f"{args.out}: is not empty; give another --out")

    words = ("--cfg", args.cfg, "--data", args.data, *WORDS, *args.overrides)
    train = TrainCommand(train_command(args.processes), words, train_environment())
    untouched = RunFolder(args.out / "untouched")
    begun = time.monotonic()
    wait_for_end(train.start(untouched), untouched)
    duration = time.monotonic() - begun
    expected, phases = read_outcome(untouched), measure_phases(read_events(untouched))
    print(f"untouched: {duration:.0f} s, {len(expected[1])} epochs, fingerprint {expected[0]}")

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
    print(f"{report.kills} kills: {where}; {hits['']} came after the end of a run")
    different = [victim.path.name for victim in victims if read_outcome(victim) != expected]
    if different:
        raise UserError(f"other weights or results.csv than untouched: {', '.join(different)}")
    print(f"{len(victims)} runs ended with the same weights, optimizer and results.csv, to the bit")


if __name__ == "__main__":
    cli.run(main)
