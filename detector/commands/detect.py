"""Detect objects in image files; writes each image with its boxes drawn."""

from pathlib import Path

from tqdm import tqdm

from detector.api.detection import make_detector
from detector.api.summary import describe_detections, print_skipped
from detector.build import build_hardware
from detector.commands import cli
from detector.data import UnreadableImage, list_images, read_image
from detector.engine import RunFolder
from detector.errors import UserError
from detector.visualize.draw import draw_boxes, save_image
from detector.visualize.predictions import caption_detections
from detector.weights.load import load_model


def main() -> None:
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/detect.py --weights runs/yolov4-pacsp-n-mish/best.pt photo.jpg folder/",
    )
    parser.add_argument("--weights", metavar="FILE", required=True, help="a .pt or a .weights")
    parser.add_argument("--cfg", help="network of a .weights: a name in configs/, or a .cfg")
    parser.add_argument(
        "--conf", type=float, default=0.25, help="confidence threshold (default 0.25)"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        default="runs/detect",
        help="folder of the pictures (default runs/detect)",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of them")
    cli.add_darknet_options(parser)
    args = parser.parse_args()
    if not 0 <= args.conf <= 1:
        raise UserError(f"--conf {args.conf}: expected a score between 0 and 1")

    loaded = load_model(Path(args.weights), cfg=args.cfg, options=cli.read_darknet_options(args))
    for line in loaded.notes:
        print(line)
    detect = make_detector(loaded, build_hardware(loaded.config), conf=args.conf)
    files = list_images(args.images)
    folder = RunFolder.create(Path(args.out))
    unreadable = []
    for number, path in enumerate(tqdm(files, unit="image", leave=False, disable=None), 1):
        try:
            image = read_image(str(path))
        except UnreadableImage as error:
            unreadable.append(str(error))
            continue
        detections = detect(image)
        tqdm.write(f"{path}: {describe_detections(detections, loaded.names)}")
        picture = draw_boxes(caption_detections(image, detections, loaded.names, args.conf))
        name = f"{path.stem}.jpg" if len(files) == 1 else f"{number:04d}_{path.stem}.jpg"
        save_image(folder.path / name, picture)
    print_skipped(unreadable)
    print(f"pictures of {len(files) - len(unreadable)} images: {folder.path}")
    if len(unreadable) == len(files):
        raise UserError("none of the images can be read")


if __name__ == "__main__":
    cli.run(main)
