"""One image from its file to COCO's numbers, shape by shape."""

import numpy as np
import torch

from detector import build
from detector.config import load_config
from detector.data import ImageReader, Letterbox, TrainLoader, ValSet, collate, read_coco
from detector.decode import decode
from detector.device import scale_images
from detector.evaluation import METRICS, CocoAP, predict
from detector.losses import assign

SIZE, CLASSES = 96, 10


def test_life_of_one_image(digits_root, digits_yaml):
    config = load_config(
        "yolov4-pacsp-n-mish",
        [f"data.size={SIZE}", "data.workers=0", "train.batch_size=3", "train.precision=fp32"],
        data=str(digits_yaml),
    )
    # a reader's sample, in its own pixels
    index = read_coco(
        digits_root / "train2017", digits_root / "annotations" / "instances_train2017.json", None
    )
    sample = ImageReader(index).read(0)
    n = len(sample.labels)
    assert (sample.image.shape, sample.image.dtype) == ((320, 320, 3), np.uint8)
    assert (sample.boxes_xyxy.shape, sample.boxes_xyxy.dtype) == ((n, 4), np.float32)
    assert (sample.labels.shape, sample.labels.dtype) == ((n,), np.int64)

    # mosaic, affine, colour: the size of the network
    data = build.build_data(config)
    augmented = data.train[0, 0].sample
    assert augmented.image.shape == (SIZE, SIZE, 3)

    # a batch, still bytes
    batch = next(iter(TrainLoader(data.train, batch_size=3, workers=0).epoch(0)))
    assert (batch.images.shape, batch.images.dtype) == ((3, 3, SIZE, SIZE), torch.uint8)
    assert batch.boxes_xyxy.shape == (len(batch.labels), 4)

    # raw maps
    model = build.build_model(config.model, len(data.names))
    hardware = build.build_hardware(config)
    moved = hardware.move(batch)
    raw = model(scale_images(moved.images))
    assert [tuple(level.shape) for level in raw] == [
        (3, 3, SIZE // s, SIZE // s, 5 + CLASSES) for s in (8, 16, 32)
    ]

    # matches and losses
    shapes = [(level.shape[2], level.shape[3]) for level in raw]
    boxes, owners = batch.boxes_xyxy, batch.image_index
    matches = assign(boxes, owners, model.anchors, model.strides, shapes, 4.0, [0.5] * 3)
    assert len(matches) == 3
    assert all(m.boxes_cxcywh.shape == (len(m.row), 4) for m in matches)
    losses = build.build_loss(config, model, len(data.names))(raw, batch)
    assert set(losses) == {"box", "obj", "cls"}
    assert all(value.shape == () and value > 0 for value in losses.values())

    # evaluation: letterbox, candidates, suppression, back to the image's own pixels
    val = ValSet(data.val.reader, Letterbox(SIZE), batch_size=2)
    batch = collate([val[0], val[1]])
    with torch.no_grad():
        raw = model.eval()(scale_images(hardware.move(batch).images))
    candidates = decode(raw, model.anchors, model.strides, model.decoder, conf=1e-5)
    count = len(candidates.image)
    assert 0 < count <= 2 * 3 * sum((SIZE // s) ** 2 for s in (8, 16, 32)) * CLASSES
    assert candidates.boxes_xyxy.shape == (count, 4)
    assert candidates.scores.shape == candidates.labels.shape == (count,)
    postprocess = build.build_postprocess(config.eval, conf=1e-5)
    detections = postprocess.suppress(candidates, 2)
    assert len(detections) == 2
    assert detections[0].boxes_xyxy.shape == (len(detections[0].scores), 4)
    originals = [
        placement.to_original(each.boxes_xyxy)
        for placement, each in zip(batch.placements, detections, strict=True)
    ]
    assert originals[0].min() >= 0
    assert originals[0].max() <= 320

    # `predict` takes the same steps
    (images,) = predict(model, [batch], postprocess, hardware=hardware)
    assert [each.image_id for each in images] == batch.image_ids
    for each, boxes, steps in zip(images, originals, detections, strict=True):
        assert torch.equal(each.detections.boxes_xyxy, boxes)
        assert torch.equal(each.detections.scores, steps.scores)

    # COCO's numbers
    index = data.val.reader.index
    metrics = CocoAP(index.annotations, index.category_ids.tolist())(images)
    assert tuple(metrics) == METRICS
    assert build.build_evaluator(config, data.val, hardware)(model).keys() == metrics.keys()
