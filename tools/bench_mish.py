"""The command of `detector/commands/bench_mish.py`; `python tools/bench_mish.py --help`."""

from detector.commands import bench_mish, cli

if __name__ == "__main__":
    cli.run(bench_mish.main)
