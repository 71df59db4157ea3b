"""Find objects in image files; writes each image with its boxes drawn."""

from pathlib import Path

from tqdm import tqdm

from detector import cli  # first: how threads wait, before torch is loaded
from detector.build import build_hardware, load_model
from detector.data import UnreadableImage, read_image
from detector.draw import draw_boxes, save_image
from detector.engine import RunFolder
from detector.errors import UserError
from detector.report import as_picture, image_files
from detector.single import Detector


def main() -> None:
    parser = cli.parser(
        __doc__ or "", "python tools/detect.py --weights runs/digits/best.pt photo.jpg folder/"
    )
    parser.add_argument("--weights", metavar="PT", required=True, help="best.pt of a run")
    parser.add_argument("--conf", type=float, default=0.25, help="lowest score (default 0.25)")
    parser.add_argument("--out", metavar="FOLDER", default="runs/detect", help="of the pictures")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, or folders of them")
    args = parser.parse_args()
    if not 0 <= args.conf <= 1:
        raise UserError(f"--conf {args.conf}: expected a score between 0 and 1")


if __name__ == "__main__":
    cli.run(main)
