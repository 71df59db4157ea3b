"""Detect objects in images, videos, cameras and streams; writes them with their boxes drawn.

A source is an image or a video file, a folder of them, a pattern ('photos/*.jpg'), the number of a
camera, or the address of a stream (rtsp://...). A file that cannot be read is named and skipped; the exit
status is then 1. A stream that drops is reopened a few times.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from detector.api.detection_outputs import (
    CocoFile,
    Crops,
    JsonLines,
    Output,
    Outputs,
    Pictures,
    YoloLabels,
)
from detector.api.detections import Detections
from detector.api.detector import CONF, Detector, Thresholds
from detector.api.frame_sources import Frame, FrameSource, ImageFiles, open_sources
from detector.api.summary import describe_detections, print_skipped
from detector.commands import cli
from detector.engine import RunFolder
from detector.errors import UserError

EXIT_SKIPPED = 1  # some files cannot be read


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = cli.make_parser(
        __doc__ or "",
        "python tools/detect.py --weights runs/yolov4-pacsp-n-mish/best.pt photo.jpg folder/ video.mp4",
    )
    option = parser.add_argument
    option("--weights", metavar="FILE", required=True, help="a .pt, a .weights or an exported file")
    option("--cfg", help="network of a .weights: a name in configs/, or a .cfg")
    option(
        "--conf",
        default=str(CONF),
        metavar="SCORE",
        help=f"confidence threshold, or a report's thresholds.json (default {CONF})",
    )
    option("--classes", nargs="+", metavar="NAME", help="detect only these classes")
    option("--size", type=int, help="width and height that images are scaled to, px")
    option("--batch", type=int, default=1, help="images computed at once (default 1)")
    option("--device", default="auto", help="cpu, cuda, cuda:1 (default auto)")
    option("--precision", default="auto", help="fp32, bf16, fp16 (default auto)")
    option(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="detect in overlapping tiles of this size: small objects in large images",
    )
    option(
        "--class-agnostic", action="store_true", help="a box also suppresses those of other classes"
    )
    option("--limit", type=int, metavar="N", help="stop after N images or frames")
    group = parser.add_argument_group("what is written")
    option = group.add_argument
    option("--out", metavar="FOLDER", default="runs/detect", help="default runs/detect")
    option("--no-pictures", action="store_true", help="no pictures and videos")
    option("--json-lines", action="store_true", help="detections.jsonl, a line per image or frame")
    option("--yolo", action="store_true", help="labels/, a YOLO text file per image or frame")
    option("--coco", action="store_true", help="coco.json: images, categories, annotations")
    option("--crops", action="store_true", help="crops/CLASS/, a picture per detection")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="see above")
    cli.add_darknet_options(parser)
    return parser


def main() -> None:
    """Runs the command."""
    args = make_parser().parse_args()
    model = Detector(
        args.weights,
        cfg=args.cfg,
        device=args.device,
        precision=args.precision,
        size=args.size,
        conf=parse_thresholds(args.conf),
        classes=args.classes,
        class_agnostic=args.class_agnostic,
        tile=args.tile,
        darknet=cli.read_darknet_options(args),
    )
    for line in model.notes:
        print(line)
    sources = open_sources(args.sources)
    folder = RunFolder.create(Path(args.out)).path
    start, done, skipped = time.perf_counter(), 0, []
    with Outputs(open_outputs(args, folder, model.names, sources)) as outputs:
        for frame, found in detect_frames(model, sources, args.batch, args.limit):
            if found is None:
                skipped.append(frame.error)
                continue
            done += 1
            if frame.number is None:
                tqdm.write(f"{frame.source}: {describe_detections(found, model.names)}")
            outputs.write(frame, found)
    seconds = time.perf_counter() - start
    print_skipped(skipped)
    if not done:
        raise UserError("none of the images can be read")
    print(
        f"pictures of {done} images: {folder}"
        if not args.no_pictures
        else f"{done} images: {folder}"
    )
    print(f"{done / seconds:.1f} images/s, reading and writing included")
    if skipped:
        print(f"{len(skipped)} of {done + len(skipped)} could not be read")
        raise SystemExit(EXIT_SKIPPED)


def parse_thresholds(text: str) -> Thresholds:
    """A number, or the path of a thresholds.json.

    Raises:
        UserError: a number out of range.
    """
    try:
        value = float(text)
    except ValueError:
        return Path(text)
    if not 0 <= value <= 1:
        raise UserError(f"--conf {text}: expected a score between 0 and 1")
    return value


def open_outputs(
    args: argparse.Namespace, folder: Path, names: tuple[str, ...], sources: list[FrameSource]
) -> list[Output]:
    """The outputs that the options ask for."""
    fps = {source.name: source.fps for source in sources if not isinstance(source, ImageFiles)}
    outputs: list[Output] = [] if args.no_pictures else [Pictures(folder, fps)]
    if args.json_lines:
        outputs.append(JsonLines(folder / "detections.jsonl"))
    if args.yolo:
        outputs.append(YoloLabels(folder / "labels"))
    if args.coco:
        outputs.append(CocoFile(folder / "coco.json", names))
    if args.crops:
        outputs.append(Crops(folder / "crops"))
    return outputs


def detect_frames(
    model: Detector, sources: Sequence[FrameSource], batch_size: int, limit: int | None
) -> Iterator[tuple[Frame, Detections | None]]:
    """Yields each frame with its detections, or None if it cannot be read; shows progress."""
    counts = [source.count for source in sources]
    total = sum(count or 0 for count in counts) if None not in counts else None
    frames = islice(chain.from_iterable(sources), limit)
    with tqdm(total=total, unit="image", leave=False, disable=None) as bar:
        while batch := list(islice(frames, batch_size)):
            readable = [frame for frame in batch if frame.image is not None]
            found = iter(
                model([frame.image for frame in readable], channels="RGB", batch_size=batch_size)
            )
            for frame in batch:
                yield frame, None if frame.image is None else next(found)
            bar.update(len(batch))


if __name__ == "__main__":
    cli.run(main)
