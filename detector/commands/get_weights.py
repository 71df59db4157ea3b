"""Download a published weight file; without a name, list all of them."""

from pathlib import Path

from detector.command_names import format_command
from detector.commands import cli
from detector.config import content_folder
from detector.errors import UserError
from detector.weights.download import download
from detector.weights.published import find_published, list_published


def main() -> None:
    parser = cli.make_parser(__doc__ or "", "python tools/get_weights.py yolov4-pacsp-mish")
    parser.add_argument("name", nargs="?", help="a name in weights/index.yaml")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        default=content_folder("weights"),
        type=Path,
        help="where to put it (default weights/)",
    )
    parser.add_argument("--url", help="another address of the same file, such as that of a mirror")
    parser.add_argument("--json", metavar="FILE", help="write the list to this file")
    args = parser.parse_args()

    if args.json is not None:
        entries = [entry.model_dump(mode="json") for entry in list_published()]
        cli.write_json(Path(args.json), entries)
    if args.name is None:
        for entry in list_published():
            where = "" if entry.url else f"  (by hand, from {entry.page})"
            print(f"{entry.name:<34} {entry.size / 2**20:7.1f} MiB  {entry.publisher}{where}")
        return
    entry = find_published(args.name)
    url = args.url or entry.url
    if url is None:
        raise UserError(
            f"{entry.name}: no confirmed download address; download {entry.file} by hand from "
            f"{entry.page} and put it into {args.out}"
        )
    path = args.out / entry.local_name
    download(url, path, size=entry.size, sha256=entry.sha256)
    print(f"{path}: {entry.size:,} bytes, as {entry.publisher} published it")
    words = ("--cfg", entry.config, "--weights", str(path))
    if entry.partial:
        print(f"train from it: {format_command('train', *words)}")
    else:
        print(f"evaluate it: {format_command('val', *words)}")


if __name__ == "__main__":
    cli.run(main)
