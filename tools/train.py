"""Train a detector, then print COCO's twelve numbers of the best weights."""

import json
from pathlib import Path

from torch import nn

from detector import cli  # first: how threads wait, before torch is loaded
from detector.build import (
    build_data,
    build_evaluator,
    build_hardware,
    build_observers,
    build_trainer,
    label_lines,
    resolve_anchors,
    with_anchors,
)
from detector.config import Config, config_from_dict, dump_config
from detector.darknet import DarknetOptions, Weights, read_config
from detector.engine import RunFolder, load_checkpoint
from detector.errors import UserError
from detector.pretrained import load_model, read_weights
from detector.report import evaluate_model, require_same_classes
from detector.transfer import adopt, transfer


def main() -> None:
    parser = cli.parser(
        __doc__ or "",
        "python tools/train.py --cfg yolov4-pacsp-mish.yaml --data coco.yaml train.epochs=100",
    )
    parser.add_argument("--cfg", metavar="YAML", help="a path, a name in configs/, or a .cfg")
    parser.add_argument("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    parser.add_argument("--weights", metavar="FILE", help="start from a .pt or a .weights")
    parser.add_argument("--out", metavar="FOLDER", help="of the run; default runs/NAME-OF-CFG")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. model.activation=relu"
    )
    cli.add_darknet_options(parser)
    args = parser.parse_intermixed_args()
    if (args.cfg is None) == (args.resume is None):
        parser.error("give either --cfg to start a run or --resume to go on with one")

    if args.resume is not None:
        if args.overrides or args.data or args.out or args.weights:
            parser.error("--resume goes on with the run as it is; it takes no other settings")
        path = Path(args.resume)
        folder = RunFolder(path.parent if path.name == "last.pt" else path)
        state = load_checkpoint(folder.last)
        if "training" not in state:
            raise UserError(f"{folder.last}: it holds weights only; a run goes on from its last.pt")
        run = Run(config_from_dict(state["config"], str(folder.last)))
        require_same_classes(str(folder.last), state["names"], run.data.names)
        run.trainer.load_state_dict(state["training"])
    else:
        words = list(args.overrides)
        if args.weights is not None:
            words.append(f"train.weights={json.dumps(str(Path(args.weights).resolve()))}")
        config, weights = read_config(args.cfg, words, data=args.data), None
        if config.train.weights is not None:
            options = DarknetOptions.of(args)
            plain = with_anchors(config, None) if config.model.anchors == "auto" else config
            weights = read_weights(Path(config.train.weights), plain, options)
        run = Run(config, weights)
        folder = RunFolder.create(Path(args.out or Path("runs", Path(args.cfg).stem)))
        folder.config.write_text(dump_config(run.config), encoding="utf-8")
    run.go(folder)


class Run:
    """The parts of a run; building them finds what is wrong before there is a folder."""

    def __init__(self, config: Config, weights: Weights | None = None) -> None:
        self.hardware = build_hardware(config)
        self.data = build_data(config)
        if weights is not None:
            config = adopt(config, weights, len(self.data.names))
        config, found = resolve_anchors(config, self.data.train.reader.index)
        self.config = config
        self.evaluator = build_evaluator(config, self.data.val, self.hardware)
        table: list[str] = []

        def start(model: nn.Module) -> None:
            if weights is not None:
                table.append(transfer(model, weights, len(self.data.names)))

        self.trainer = build_trainer(config, self.data, self.evaluator, self.hardware, start)
        print(
            f"{config.model.arch}, {config.data.dataset}: {len(self.data.names)} classes, "
            f"{len(self.data.train)} training and {len(self.data.val)} validation images; "
            f"{self.hardware}"
        )
        notes = weights.notes if weights else []
        for line in [*self.data.notes, *found, *notes, *table]:
            print(line)
        cli.tell_left_out([str(f) for f in self.data.findings if f.left_out])
        for line in label_lines(config, self.data):
            print(line)

    def go(self, folder: RunFolder) -> None:
        """Trains, then evaluates the best weights."""
        print(f"run folder: {folder.path}")
        self.trainer.observers = build_observers(self.config, self.data, folder)
        try:
            self.trainer.run()
        except KeyboardInterrupt:
            print(f"stopped; go on with: python tools/train.py --resume {folder.path}")
            raise
        best, picture = load_model(folder.best), folder.path / "val.jpg"
        print(
            evaluate_model(
                best, str(folder.best), self.evaluator, self.data.val, self.hardware, picture
            )
        )


if __name__ == "__main__":
    cli.run(main)
