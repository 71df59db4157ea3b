"""Serve a detector over HTTP: POST an image to /detect, or drop one on the page at /."""

import argparse
import importlib.util
import ipaddress

from detector.api.detector import CONF, Detector
from detector.commands import cli
from detector.errors import UserError

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")  # of the extra `serve`


def main() -> None:
    args = parse_args()
    check_packages()
    # Not before: they belong to an extra.
    from detector.serve.listen import listen
    from detector.serve.request_limits import Limits
    from detector.serve.server import make_app

    limits = Limits(
        bytes=round(args.max_mb * 1e6),
        pixels=round(args.max_megapixels * 1e6),
        waiting=args.max_waiting,
        upload_seconds=args.upload_seconds,
        seconds=args.seconds,
        batch_size=args.batch,
        batch_seconds=args.batch_wait_ms / 1000,
    )
    model = Detector(
        args.weights,
        cfg=args.cfg,
        device=args.device,
        precision=args.precision,
        size=args.size,
        conf=args.conf,
        darknet=cli.read_darknet_options(args),
    )
    if not is_loopback(args.host):
        print(f"{args.host}: reachable from other machines, without a password or encryption")
    print(f"{args.weights}: {len(model.names)} classes, {model.hardware}")
    listen(make_app(model, limits), limits, host=args.host, port=args.port)


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "", "python tools/serve.py --weights runs/digits/best.pt")
    parser.add_argument(
        "--weights", metavar="FILE", required=True, help="a .pt, .weights, .onnx, .xml or .pt2"
    )
    parser.add_argument("--cfg", help="network of a .weights: a name in configs/, or a .cfg")
    parser.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1: loopback)")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0: any that is free")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (default auto)")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, fp16 (default auto)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="default: that of training")
    parser.add_argument(
        "--conf",
        default=CONF,
        help=f"confidence threshold, or a thresholds.json of a report (default {CONF})",
    )
    group = parser.add_argument_group("limits")
    add = group.add_argument
    add("--max-mb", type=float, default=20, help="of an image file (default 20)")
    add("--max-megapixels", type=float, default=50, help="of an image (default 50)")
    add("--max-waiting", type=int, default=64, help="requests at once; more get 503 (default 64)")
    add("--upload-seconds", type=float, default=20, help="for a file to arrive (default 20)")
    add("--seconds", type=float, default=30, help="for its detections (default 30)")
    add("--batch", type=int, default=8, metavar="IMAGES", help="computed at once (default 8)")
    add("--batch-wait-ms", type=float, default=5, help="wait for a batch to fill (default 5)")
    cli.add_darknet_options(parser)
    args = parser.parse_args()
    if not 0 <= args.port < 2**16:
        raise UserError(f"--port {args.port}: expected 0 to 65535")
    args.conf = read_conf(args.conf)
    return args


def read_conf(word: str | float) -> float | str:
    """A confidence threshold, or the path of a file of them."""
    try:
        return float(word)
    except ValueError:
        return str(word)


def check_packages() -> None:
    """Checks that the packages of the extra `serve` are installed.

    Raises:
        UserError: one is missing.
    """
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"the server needs {name}: pip install fastapi uvicorn prometheus-client"
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name other than localhost counts as not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    cli.run(main)
