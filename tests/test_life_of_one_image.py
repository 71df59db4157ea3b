"""One image from its file to COCO's numbers, shape by shape."""

import numpy as np
import torch

from detector import build
from detector.config import load_config
from detector.data import ImageReader, Letterbox, TrainLoader, ValSet, collate, read_coco
from detector.decode import decode
from detector.evaluation import METRICS, CocoAP
from detector.losses import assign
from detector.postprocess import postprocess
from detector.structures import ImageDetections

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
    raw = model(batch.images.float() / 255)
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

    # validation: letterbox, decode, suppression, back to the image's own pixels
    val = ValSet(data.val.reader, Letterbox(SIZE), batch_size=2)
    batch = collate([val[0], val[1]])
    with torch.no_grad():
        raw = model.eval()(batch.images.float() / 255)
    boxes, objectness, classes = decode(raw, model.anchors, model.strides)
    cells = 3 * sum((SIZE // s) ** 2 for s in (8, 16, 32))
    assert boxes.shape == (2, cells, 4)
    assert objectness.shape == (2, cells)
    assert classes.shape == (2, cells, CLASSES)
    found = postprocess(boxes, objectness, classes, conf=1e-5, nms_iou=0.65, max_detections=300)
    assert len(found) == 2
    assert found[0].boxes_xyxy.shape == (len(found[0].scores), 4)
    back = batch.placements[0].to_original(found[0].boxes_xyxy)
    assert back.min() >= 0
    assert back.max() <= 320

    # COCO's numbers
    judge = CocoAP(data.val.reader.index.annotations, data.val.reader.index.category_ids.tolist())
    metrics = judge(
        ImageDetections(image_id, each)
        for image_id, each in zip(batch.image_ids, found, strict=True)
    )
    assert tuple(metrics) == METRICS
