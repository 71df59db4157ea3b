"""Exporting a trained model: write the file, compare it with PyTorch, and keep it only if both agree."""

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from detector.api.export_check import (
    TOLERANCES,
    Difference,
    measure_difference,
    require_same_ap,
    require_within,
)
from detector.api.summary import require_known_classes
from detector.build import (
    build_evaluator,
    build_hardware,
    build_placement,
    build_postprocess,
    build_val,
)
from detector.config import Config, config_to_dict
from detector.data import (
    LoadedSample,
    UnreadableImage,
    ValSet,
    collate,
    list_images,
    read_image,
    sample_without_labels,
)
from detector.device import scale_images
from detector.errors import UserError, writing
from detector.export import (
    ExportedModel,
    ExportMetadata,
    ExportOptions,
    is_exported_file,
    open_exported,
    quantize_onnx,
    require_export_packages,
    write_exported,
)
from detector.structures import Batch
from detector.weights.darknet import DarknetOptions
from detector.weights.load import LoadedModel, load_model

COMPARED_IMAGES = 8
CPU_FP32 = ("train.device=cpu", "train.precision=fp32", "train.channels_last=false")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What a user asked for.

    Attributes:
        format: onnx, torch_export or openvino.
        precision: fp32, fp16 or int8.
        mish: operator or composed.
        nms: suppression inside the file.
        fixed_batch: images per batch of a file with a fixed batch and size; None: any.
        data: a data YAML to compute AP on; None computes none, except for int8.
        images: files and folders to compare on; by default those of the data set.
        calibration: number of training images that set the ranges of int8.
        tolerance: largest difference of a score, in place of the default of the precision.
    """

    format: str = "onnx"
    precision: str = "fp32"
    mish: str = "operator"
    nms: bool = False
    fixed_batch: int | None = None
    data: str | None = None
    images: Sequence[str] = ()
    calibration: int = 64
    tolerance: float | None = None

    def check(self) -> None:
        """Checks that the parts go together and that the packages are there.

        Raises:
            UserError: they do not.
        """
        if self.format == "torch_export":
            for option, given in (
                ("--nms", self.nms),
                ("--precision int8", self.precision == "int8"),
                ("--mish composed", self.mish == "composed"),
            ):
                if given:
                    raise UserError(f"{option} works for onnx and openvino, not for torch_export")
        require_export_packages(self.format, int8=self.precision == "int8")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """A file that was written, and how it compares with PyTorch.

    Attributes:
        files: that it consists of.
        difference: the largest ones on the compared images.
        ap, pytorch_ap: COCO AP in [0, 1]; None if it was not computed.
        lines: for the user.
    """

    files: list[Path]
    difference: Difference
    ap: float | None
    pytorch_ap: float | None
    lines: list[str]

    def as_json(self) -> dict[str, Any]:
        """For a file that scripts read."""
        return {
            "files": [str(file) for file in self.files],
            "difference": asdict(self.difference),
            "ap": self.ap,
            "pytorch_ap": self.pytorch_ap,
        }


def export_model(
    weights: Path,
    out: Path,
    request: ExportRequest,
    overrides: Sequence[str] = (),
    *,
    cfg: str | None = None,
    options: DarknetOptions | None = None,
) -> ExportReport:
    """Exports a model and compares the file with PyTorch.

    Args:
        weights: a checkpoint or a darknet file.
        out: the file to write; replaced if it exists, once the new one has passed.
        request: what to write.
        overrides: `key=value` words: data.size, eval.conf, eval.nms_iou ...
        cfg, options: of a darknet file, as for `load_model`.

    Raises:
        UserError: the model cannot be loaded, there are no images, the file cannot be written, or it
            differs from PyTorch by more than its tolerance; no new file is left.
    """
    request.check()
    if is_exported_file(weights):
        raise UserError(
            f"{weights}: is an exported file already; give the checkpoint it was made from"
        )
    words = [*overrides, *CPU_FP32]
    if request.fixed_batch is not None:
        words.append(f"eval.batch_size={request.fixed_batch}")
    loaded = load_model(weights, words, dataset=request.data, cfg=cfg, options=options)
    loaded.model.eval()
    build_hardware(loaded.config)  # sets the number of threads
    metadata = describe_export(loaded, request)
    batches = load_comparison_images(loaded.config, request)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-")
    with folder as name:
        draft = Path(name) / out.name
        with writing(out):
            files = write_exported(
                loaded.model, draft, metadata, _make_options(loaded.config, request)
            )
        exported = open_exported(draft)
        exported.source = str(out)
        report = _check(loaded, exported, batches, request, str(out))
        with writing(out):
            files = [Path(shutil.move(file, out.parent / file.name)) for file in files]
    size = sum(file.stat().st_size for file in files) / 1e6
    written = f"{out}: {request.format}, {metadata}, {size:.1f} MB"
    return replace(report, files=files, lines=[*loaded.notes, *report.lines, written])


def describe_export(loaded: LoadedModel, request: ExportRequest) -> ExportMetadata:
    """The metadata of the file to write.

    Raises:
        UserError: suppression inside is asked for with darknet's own variant of it.
    """
    config, model = loaded.config, loaded.model
    assert not isinstance(model, ExportedModel)
    if request.nms and config.eval.protocol == "darknet":
        raise UserError(
            "--nms: eval.protocol=darknet has a suppression of its own, which the formats lack; add "
            "eval.protocol=letterbox, or remove --nms"
        )
    shape, size = None, config.data.size
    if request.fixed_batch is not None:
        shape = (request.fixed_batch, size, size)
    return ExportMetadata(
        names=loaded.names,
        strides=tuple(model.strides),
        decoder=str(model.decoder),
        precision=request.precision,
        shape=shape,
        size=size,
        nms=request.nms,
        conf=config.eval.conf,
        nms_iou=config.eval.nms_iou,
        max_detections=config.eval.max_detections,
        config=config_to_dict(config),
    )


def load_comparison_images(config: Config, request: ExportRequest) -> list[Batch]:
    """A few letterboxed images: the user's, or the first validation images.

    Raises:
        UserError: there are none.
    """
    if request.images:
        return list(_read_images(config, request.images))
    try:
        val = build_val(config)
    except UserError as error:
        raise UserError(
            f"no images to compare the file with PyTorch on: {error}; give --images or --data"
        ) from None
    batches = list(itertools.islice(_iterate(val), -(-COMPARED_IMAGES // len(val.batches[0]))))
    if not batches:
        raise UserError("none of the validation images can be read; give --images")
    return [replace(batch, images=batch.images[:COMPARED_IMAGES]) for batch in batches]


def _read_images(config: Config, paths: Sequence[str]) -> Iterator[Batch]:
    placement = build_placement(config)
    for path in list_images(paths):
        try:
            image = read_image(str(path))
        except UnreadableImage as error:
            raise UserError(f"{error}; --images takes images only") from None
        _, (shape,) = placement.plan(np.array([image.shape[:2]]), 1)
        yield collate([LoadedSample(*placement.place(sample_without_labels(image), shape))])


def _iterate(images: ValSet) -> Iterator[Batch]:
    for numbers in images.batches:
        batch = collate([images[number] for number in numbers])
        if len(batch):
            yield batch


def _make_options(config: Config, request: ExportRequest) -> ExportOptions:
    quantize = None
    if request.precision == "int8":
        quantize = partial(quantize_onnx, batches=_calibration_images(config, request.calibration))
    return ExportOptions(request.format, request.mish, quantize)


def _calibration_images(config: Config, count: int) -> Iterator[np.ndarray]:
    """The first training images, placed as in an evaluation, float32 [B, 3, H, W] in [0, 1]."""
    images = build_val(config, "train")
    fixed = config.eval.batch_size
    for batch in _iterate(images):
        pixels = scale_images(batch.images).numpy()
        yield pixels[np.arange(fixed) % len(pixels)]  # a file with a fixed batch takes no less
        count -= len(pixels)
        if count <= 0:
            return


def _check(
    loaded: LoadedModel,
    exported: ExportedModel,
    batches: Sequence[Batch],
    request: ExportRequest,
    source: str,
) -> ExportReport:
    """Compares outputs and, with a data set, AP; the report lacks the files."""
    tolerance = TOLERANCES[request.precision]
    if request.tolerance is not None:
        tolerance = replace(tolerance, score=request.tolerance)
    postprocess = build_postprocess(loaded.config.eval)
    difference = measure_difference(loaded.model, exported, batches, postprocess)
    require_within(source, difference, tolerance)
    lines = [f"{difference} (tolerance {tolerance.score:g}, {tolerance.box:g} px)"]
    if request.data is None and request.precision != "int8":
        return ExportReport([], difference, None, None, lines)
    before, after = (_compute_ap(each, loaded, source) for each in (loaded.model, exported))
    require_same_ap(source, before, after, precision=request.precision)
    lines += [f"AP {after:.4f}, of PyTorch {before:.4f} (tolerance {tolerance.ap:g})"]
    return ExportReport([], difference, after, before, lines)


def _compute_ap(model: nn.Module, loaded: LoadedModel, source: str) -> float:
    config = loaded.config
    val, hardware = build_val(config), build_hardware(config)
    require_known_classes(source, loaded.names, val)
    return build_evaluator(config, val, hardware)(model)["AP"]
