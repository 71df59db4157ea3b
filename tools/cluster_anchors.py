"""The command of `detector/commands/cluster_anchors.py`; `python tools/cluster_anchors.py --help`."""

from detector.commands import cli, cluster_anchors

if __name__ == "__main__":
    cli.run(cluster_anchors.main)
