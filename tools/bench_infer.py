"""The command of `detector/commands/bench_infer.py`; `python tools/bench_infer.py --help`."""

from detector.commands import bench_infer, cli

if __name__ == "__main__":
    cli.run(bench_infer.main)
