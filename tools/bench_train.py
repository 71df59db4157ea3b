"""The command of `detector/commands/bench_train.py`; `python tools/bench_train.py --help`."""

from detector.commands import bench_train, cli

if __name__ == "__main__":
    cli.run(bench_train.main)
