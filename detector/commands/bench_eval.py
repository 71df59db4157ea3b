"""Time COCO's evaluation and the postprocessing on synthetic data as large as COCO's validation split."""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from detector.build import build_model
from detector.commands import cli
from detector.config import ModelConfig
from detector.decode import decode
from detector.evaluation import GroundTruth, Results, choose_backend
from detector.postprocess import suppress

IMAGES, BOXES, CLASSES, DETECTIONS = (
    5000,
    36_000,
    80,
    500_000,
)  # as in COCO val2017, with a typical detector
SIZE = 640


def main() -> None:
    parser = cli.make_parser(__doc__ or "", "python tools/bench_eval.py")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the synthetic data (default 0)"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=3,
        help="repetitions of the fast backend and of the network (default 3)",
    )
    parser.add_argument(
        "--json", "--out", metavar="FILE", help="also write the figures to this file"
    )
    parser.add_argument(
        "--evaluator", help="measure only this backend, in this process, and print JSON"
    )
    args = parser.parse_args()
    if args.evaluator:
        print(json.dumps(measure_evaluator(args.evaluator, args.seed, args.runs)))
        return
    figures = {
        "evaluation": compare_evaluators(args),
        "postprocessing": measure_postprocessing(args),
    }
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def compare_evaluators(args: argparse.Namespace) -> dict[str, dict]:
    print(
        f"{IMAGES} images, {BOXES} ground-truth boxes, {CLASSES} classes, {DETECTIONS} detections"
    )
    figures = {}
    for name in ("pycocotools", "auto"):
        words = [sys.executable, __file__, "--evaluator", name, f"--seed={args.seed}"]
        done = subprocess.run(
            [*words, f"--runs={args.runs if name == 'auto' else 1}"],
            check=True,
            capture_output=True,
            text=True,
        )
        figures[name] = json.loads(done.stdout)
        print(
            "  {backend}: {seconds:.2f} s, {peak_gb:.2f} GB above the arrays".format(
                **figures[name]
            )
        )
    slow, fast = figures["pycocotools"], figures["auto"]
    print(f"  {slow['seconds'] / fast['seconds']:.0f} times as fast as pycocotools")
    for what in ("stats", "arrays"):
        print(f"  {what}: {'bit-identical' if slow[what] == fast[what] else 'DIFFERENT'}")
    return figures


def measure_evaluator(name: str, seed: int, runs: int) -> dict:
    """The median time from arrays to the twelve numbers, in seconds, and the memory it takes."""
    ground_truth, results = make_detections(seed)
    backend = choose_backend(name)
    before, seconds = measure_peak_gb(), []
    for _ in range(runs):
        start = time.perf_counter()
        result = backend.evaluate(ground_truth, results, None)
        seconds.append(time.perf_counter() - start)
    return {
        "backend": str(backend),
        "seconds": float(np.median(seconds)),
        "peak_gb": measure_peak_gb() - before,
        "stats": [value.hex() for value in result.stats.tolist()],  # pyright: ignore
        "arrays": digest(result.precision, result.recall, result.scores),  # pyright: ignore
    }


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def make_detections(seed: int) -> tuple[GroundTruth, Results]:
    """Makes objects of all sizes, 1 % of them crowds, and detections near them: scores with ties, a tenth
    of the detections of another class.
    """
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(2, 5.5, (BOXES, 2)))
    boxes = np.concatenate([rng.uniform(0, 400, (BOXES, 2)), sizes], 1)
    ground_truth = GroundTruth(
        image_ids=np.arange(1, IMAGES + 1),
        category_ids=np.arange(1, CLASSES + 1),
        names=tuple(f"class {n}" for n in range(CLASSES)),
        image=np.sort(rng.integers(0, IMAGES, BOXES)),
        label=rng.integers(0, CLASSES, BOXES),
        boxes_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 1, BOXES),
        crowd=rng.random(BOXES) < 0.01,
    )
    source = rng.integers(0, BOXES, DETECTIONS)
    label, other = ground_truth.label[source], rng.random(DETECTIONS) < 0.1
    label[other] = rng.integers(0, CLASSES, int(other.sum()))
    spread = np.tile(sizes[source], 2) * rng.choice([0.02, 0.1, 0.4], (DETECTIONS, 1))
    moved = np.abs(boxes[source] + rng.normal(0, 1, (DETECTIONS, 4)) * spread)
    score = rng.beta(0.4, 2, DETECTIONS).round(4)
    return ground_truth, Results(ground_truth.image[source], label, moved, score)


@torch.inference_mode()
def measure_postprocessing(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds per 640 px image on a CPU, for the -s network and for the postprocessing."""
    torch.manual_seed(args.seed)
    model = build_model(ModelConfig(arch="yolov4-pacsp-s"), CLASSES).eval()
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore
    image = torch.rand(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    figures = {"network": measure_median_ms(lambda: model(image), args.runs + 2)}
    threads = torch.get_num_threads()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    print(f"{SIZE} px, {count}: -s network {figures['network']:.0f} ms")
    shapes = [level.shape for level in model(image)]
    for pairs in (5000, 30_000):
        raw = make_raw_maps(shapes, pairs, args.seed)

        def boxes(raw: list[torch.Tensor] = raw) -> int:
            candidates = decode(raw, model.anchors, model.strides, model.decoder, conf=0.001)
            suppress(candidates, 1, nms_iou=0.65, max_detections=300)
            return len(candidates.scores)

        count, spent = boxes(), measure_median_ms(boxes, 5 * args.runs)
        share = spent / figures["network"]
        print(f"  decode and NMS of {count} (box, class) pairs: {spent:.1f} ms, {share:.1%}")
        figures[f"boxes_{pairs}"] = spent
    return figures


def make_raw_maps(shapes: list[torch.Size], pairs: int, seed: int) -> list[torch.Tensor]:
    """Makes raw maps of one image in which `pairs` (box, class) pairs score above 0.001.

    As after training: objects are blobs of neighbouring cells that see the same box and class.
    """
    generator = torch.Generator().manual_seed(seed)
    raw = []
    for shape in shapes:
        level = torch.randn(shape, generator=generator)
        spots = torch.randn(shape[0], 1, shape[2], shape[3], shape[4] - 4, generator=generator)
        spots = torch.nn.functional.avg_pool2d(spots[:, 0].permute(0, 3, 1, 2), 5, 1, 2) * 5
        level[..., 4:] = 0.5 * level[..., 4:] + 2 * spots.permute(0, 2, 3, 1)[:, None]
        raw.append(level)
    low, high = -30.0, 10.0  # bounds of the objectness bias, found by bisection
    for _ in range(40):
        bias = (low + high) / 2
        score = [(m[..., 4:5] + bias).sigmoid() * (m[..., 5:] - 3).sigmoid() for m in raw]
        low, high = (
            (bias, high) if sum(int((s > 0.001).sum()) for s in score) < pairs else (low, bias)
        )
    for level in raw:
        level[..., 4] += high
        level[..., 5:] -= 3
    return raw


def measure_median_ms(call: Callable[[], object], runs: int) -> float:
    spent = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return 1000 * float(np.median(spent))


def measure_peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    cli.run(main)
