"""Train a classifier, then print top-1 and top-5 accuracy of the best weights."""

from detector.commands import cli, train

EXAMPLE = "python tools/train_classifier.py --cfg cnn6-mish-cls.yaml --seeds 0 1 2"


def main() -> None:
    train.run(__doc__ or "", EXAMPLE)


if __name__ == "__main__":
    cli.run(main)
