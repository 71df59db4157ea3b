"""The command of `detector/commands/bench_eval.py`; `python tools/bench_eval.py --help`."""

from detector.commands import bench_eval, cli

if __name__ == "__main__":
    cli.run(bench_eval.main)
