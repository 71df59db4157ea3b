"""Run the beginning of a run again, and compare its losses to the last bit."""

import subprocess
import sys
from pathlib import Path

from detector.commands import cli
from detector.engine import (
    FIRST_BATCHES,
    RunFolder,
    differences,
    first_difference,
    first_losses,
    read_manifest,
)
from detector.errors import UserError

EXIT_DIFFERENT = 1
TRAIN = Path(__file__).with_name("train.py")


def main() -> None:
    parser = cli.parser(
        (__doc__ or "") + "\n\nExit status: 0 equal to the bit, 1 different, 2 could not be run.",
        "python tools/reproduce.py runs/yolov4-pacsp-n-mish",
    )
    parser.add_argument("run", metavar="FOLDER", help="of the run")
    parser.add_argument(
        "--batches",
        type=int,
        default=FIRST_BATCHES,
        help=f"how many to compare, up to {FIRST_BATCHES}, the default",
    )
    parser.add_argument("--out", metavar="FOLDER", help="of the new run; default RUN-again")
    args = parser.parse_args()
    if not 1 <= args.batches <= FIRST_BATCHES:
        raise UserError(f"--batches {args.batches}: a run records its first {FIRST_BATCHES}")

    run = RunFolder(Path(args.run))
    if not run.config.is_file():
        raise UserError(f"{run.config}: no such file; expected the folder of a run")
    before = first_losses(run.events)
    sessions = read_manifest(run.manifest).get("sessions") or [{}]
    processes = sessions[0].get("hardware", {}).get("processes", 1)
    again = RunFolder.create(Path(args.out or f"{run.path}-again"))

    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(TRAIN)]
    command += ["--cfg", str(run.config), "--out", str(again.path)]
    command += ["--batch-limit", str(args.batches), "train.log=[]"]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"{run.path}: it does not run again; the reason is above")

    compared, difference = first_difference(before, first_losses(again.events), args.batches)
    if difference is None:
        print(f"equal to the bit: the losses of {compared} batches of {run.path} and {again.path}")
        return
    print(f"different: {difference}")
    found = differences(run.manifest, again.manifest)
    for line in found or [
        "nothing that the manifests know of: is something random on this device?"
    ]:
        print(f"  {line}")
    raise SystemExit(EXIT_DIFFERENT)


if __name__ == "__main__":
    cli.run(main)
