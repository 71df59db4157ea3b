"""Train a detector, then print COCO's twelve numbers of the best weights."""

from pathlib import Path

from detector import cli  # first: how threads wait, before torch is loaded
from detector.build import (
    Data,
    build_data,
    build_evaluator,
    build_hardware,
    build_trainer,
    load_model,
)
from detector.config import Config, config_from_dict, dump_config, load_config
from detector.engine import Hardware, RunFolder, load_checkpoint
from detector.errors import UserError
from detector.report import evaluate_model


def main() -> None:
    parser = cli.parser(
        __doc__ or "",
        "python tools/train.py --cfg yolov4-pacsp-mish.yaml --data coco.yaml train.epochs=100",
    )
    parser.add_argument("--cfg", metavar="YAML", help="a path, or a file name in configs/")
    parser.add_argument("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    parser.add_argument("--out", metavar="FOLDER", help="of the run; default runs/NAME-OF-CFG")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run (folder or last.pt)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. model.activation=relu"
    )
    args = parser.parse_args()
    if (args.cfg is None) == (args.resume is None):
        parser.error("give either --cfg to start a run or --resume to go on with one")

    if args.resume is not None:
        if args.overrides or args.data or args.out:
            parser.error("--resume goes on with the run as it is; it takes no other settings")
        resume(Path(args.resume))
    else:
        config = load_config(args.cfg, args.overrides, data=args.data)
        data, hardware = prepare(config)
        folder = RunFolder.create(Path(args.out or Path("runs", Path(args.cfg).stem)))
        folder.config.write_text(dump_config(config), encoding="utf-8")
        train(config, data, hardware, folder, None)


def prepare(config: Config) -> tuple[Data, Hardware]:
    hardware = build_hardware(config)
    data = build_data(config)
    print(
        f"{config.model.arch}, {config.data.dataset}: {len(data.names)} classes, "
        f"{len(data.train)} training and {len(data.val)} validation images; {hardware}"
    )
    cli.tell_left_out(data.complaints)
    return data, hardware


def resume(path: Path) -> None:
    folder = RunFolder(path if path.is_dir() else path.parent)
    content = load_checkpoint(folder.last)
    if "training" not in content:
        raise UserError(f"{folder.last}: it holds weights only; a run goes on from its last.pt")
    config = config_from_dict(content["config"], str(folder.last))
    train(config, *prepare(config), folder, content["training"])


def train(
    config: Config, data: Data, hardware: Hardware, folder: RunFolder, state: dict | None
) -> None:
    evaluator = build_evaluator(config, data.val, hardware)
    trainer = build_trainer(config, data, evaluator, hardware, folder)
    if state is not None:
        trainer.load_state_dict(state)
    print(f"run folder: {folder.path}")
    try:
        trainer.run()
    except KeyboardInterrupt:
        print(f"stopped; go on with: python tools/train.py --resume {folder.path}")
        raise
    loaded, picture = load_model(folder.best), folder.path / "val.jpg"
    print(evaluate_model(loaded, str(folder.best), evaluator, data.val, hardware, picture))


if __name__ == "__main__":
    cli.run(main)
