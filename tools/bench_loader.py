"""The command of `detector/commands/bench_loader.py`; `python tools/bench_loader.py --help`."""

from detector.commands import bench_loader, cli

if __name__ == "__main__":
    cli.run(bench_loader.main)
