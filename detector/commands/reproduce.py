"""Repeat the first batches of a run and compare their losses bit for bit."""

import subprocess
from pathlib import Path

from detector.commands import cli
from detector.commands.launch import make_train_command, make_train_environment
from detector.engine import (
    FIRST_BATCHES,
    RunFolder,
    compare_losses,
    compare_manifests,
    read_first_losses,
    read_manifest,
)
from detector.errors import UserError

EXIT_DIFFERENT = 1


def main() -> None:
    parser = cli.make_parser(
        (__doc__ or "") + "\n\nExit status: 0 bitwise equal, 1 different, 2 could not be repeated.",
        "python tools/reproduce.py runs/yolov4-pacsp-n-mish",
    )
    parser.add_argument("run", metavar="FOLDER", help="the run folder")
    parser.add_argument(
        "--batches",
        type=int,
        default=FIRST_BATCHES,
        help=f"batches to compare (default and maximum {FIRST_BATCHES})",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="run folder of the repetition; default FOLDER-again"
    )
    args = parser.parse_args()
    if not 1 <= args.batches <= FIRST_BATCHES:
        raise UserError(
            f"--batches {args.batches}: expected 1 to {FIRST_BATCHES}, the batches that a run records"
        )

    run = RunFolder(Path(args.run))
    if not run.config.is_file():
        raise UserError(f"{run.config}: no such file; expected a run folder")
    before = read_first_losses(run.events)
    sessions = read_manifest(run.manifest).get("sessions") or [{}]
    world_size = sessions[0].get("hardware", {}).get("processes", 1)
    again = RunFolder.create(Path(args.out or f"{run.path}-again"))

    command = [*make_train_command(world_size), "--cfg", str(run.config), "--out", str(again.path)]
    command += ["--batch-limit", str(args.batches), "train.log=[]"]
    if subprocess.run(command, env=make_train_environment(), check=False).returncode:
        raise UserError(f"{run.path}: could not be repeated; see the error above")

    compared, difference = compare_losses(before, read_first_losses(again.events), args.batches)
    if difference is None:
        print(f"bitwise equal: the losses of {compared} batches of {run.path} and {again.path}")
        return
    print(f"different: {difference}")
    reasons = compare_manifests(run.manifest, again.manifest)
    unknown = "the manifests are equal; perhaps an operation is nondeterministic on this device"
    for line in reasons or [unknown]:
        print(f"  {line}")
    raise SystemExit(EXIT_DIFFERENT)


if __name__ == "__main__":
    cli.run(main)
