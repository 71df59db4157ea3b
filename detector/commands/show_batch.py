"""Draw a training batch as the network sees it, a single sample, or what each augmentation does."""

from pathlib import Path

from tqdm import tqdm

from detector.api.augmentation_preview import AugmentationPreview, list_switches
from detector.api.summary import print_skipped
from detector.build import build_data, build_train_loader
from detector.commands import cli
from detector.config import Config, load_config, replace_values
from detector.errors import UserError
from detector.visualize.draw import (
    caption_batch,
    caption_ground_truth,
    contact_sheet,
    draw_boxes,
    save_image,
)


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/show_batch.py --cfg yolov4-pacsp-n-mish.yaml --out batch.jpg bag=yolov4",
    )
    parser.add_argument(
        "--cfg", metavar="YAML", required=True, help="a path, or a name in configs/"
    )
    parser.add_argument("--data", metavar="YAML", help="the data set: a path, or a name in data/")
    parser.add_argument("--out", metavar="FILE", default="batch.jpg", help="default batch.jpg")
    parser.add_argument(
        "--epoch", type=int, default=0, help="epoch of the batch, from 0 (default 0)"
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="number of the batch in its epoch, from 0 (default 0)"
    )
    parser.add_argument(
        "--sample",
        nargs=2,
        type=int,
        metavar=("EPOCH", "INDEX"),
        help="draw one sample at full resolution instead; both numbers from 0",
    )
    parser.add_argument(
        "--each",
        action="store_true",
        help="draw one picture per augmentation instead, before and after; --out is a folder",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. bag.mixup=0.5")
    args = parser.parse_intermixed_args()
    if args.sample and args.each:
        parser.error("give --sample or --each, not both")

    config = load_config(args.cfg, args.overrides, data=args.data)
    config = replace_values(config, {"data.workers": 0})
    out = Path(args.out)
    if args.each:
        draw_augmentations(config, out, args.epoch)
    elif args.sample:
        draw_sample(config, out, *args.sample)
    else:
        draw_batch(config, out, args.epoch, args.batch)


def draw_augmentations(config: Config, folder: Path, epoch: int) -> None:
    """Draws a picture per augmentation, before and after."""
    data = build_data(config)
    folder.mkdir(parents=True, exist_ok=True)
    preview = AugmentationPreview(config, data.train, data.names)
    switches = list_switches(config)
    for switch in tqdm(switches, unit="picture", disable=None, leave=False):
        save_image(folder / f"{switch}.jpg", preview.draw(switch, epoch))
    print(f"{len(switches)} pictures: {folder}")


def draw_sample(config: Config, out: Path, epoch: int, index: int) -> None:
    """Draws one training sample.

    Raises:
        UserError: the epoch has no such sample, or it cannot be read.
    """
    data = build_data(config)
    key = build_train_loader(config, data.train, pin_memory=False).sampler.key(epoch, index)
    if key is None:
        raise UserError(f"--sample {epoch} {index}: no such sample in this epoch")
    item = data.train[key]
    print_skipped(list(item.unreadable))
    if item.sample is None:
        raise UserError(f"sample {index} of epoch {epoch}: no image of it can be read")
    save_image(out, draw_boxes(caption_ground_truth(item.sample, data.names)))
    print(f"sample {index} of epoch {epoch}, {len(item.sample.labels)} boxes: {out}")


def draw_batch(config: Config, out: Path, epoch: int, number: int) -> None:
    """Draws all images of a training batch.

    Raises:
        UserError: the epoch has no such batch.
    """
    data = build_data(config)
    loader = build_train_loader(config, data.train, pin_memory=False)
    if not 0 <= number < len(loader):
        raise UserError(
            f"--batch {number}: out of range; an epoch has {len(loader)} batches, numbered from 0"
        )
    batch = next(loader.epoch(epoch, number))
    print_skipped(list(batch.unreadable))
    save_image(out, contact_sheet(caption_batch(batch, data.names), limit=len(batch)))
    height, width = batch.images.shape[2:]
    print(f"{len(batch)} images of {width}x{height} px, {len(batch.labels)} boxes: {out}")


if __name__ == "__main__":
    cli.run(main)
