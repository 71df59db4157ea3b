import torch

from detector.decode import decode
from detector.device import Hardware
from detector.evaluation import TTAView, make_tta_views, predict
from detector.postprocess import Postprocess
from detector.structures import Batch, Candidates, Detections, LetterboxTransform


def candidates_at(boxes):
    n = len(boxes)
    return Candidates(torch.zeros(n).long(), boxes, torch.ones(n), torch.zeros(n).long())


def test_invert_maps_a_box_to_its_place_in_the_image():
    """The extent of the bright pixels of every view, mapped back, is the white box."""
    images = torch.zeros(1, 3, 96, 128)
    images[:, :, 20:60, 30:90] = 1
    for view in make_tta_views((0.5, 0.8, 1.0, 1.4), flip=True):
        augmented = view.apply(images, 32)
        assert augmented.shape[2] % 32 == augmented.shape[3] % 32 == 0
        rows, columns = (augmented[0, 0] > 0.5).nonzero(as_tuple=True)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        back = view.invert(candidates_at(box[None]), images, 32).boxes_xyxy[0]
        assert (back - torch.tensor([30.0, 20, 90, 60])).abs().max() <= 1 / view.scale, view


def test_the_plain_view_is_the_image():
    images = torch.rand(2, 3, 64, 64)
    boxes = torch.rand(5, 4)
    assert TTAView().apply(images, 32) is images
    assert TTAView().invert(candidates_at(boxes), images, 32).boxes_xyxy is boxes
    assert make_tta_views((1.0,), flip=False) == (TTAView(),)


class Symmetric(torch.nn.Module):
    """Makes the mean of each cell's pixels its objectness, so that a flipped image gives flipped maps."""

    anchors = torch.tensor([[[20.0, 20.0]]])
    strides = (8,)

    def forward(self, images):
        mean = torch.nn.functional.avg_pool2d(images[:, :1], 8)[:, :, :, :, None]
        logits = torch.cat([mean * 0] * 4 + [mean * 8 - 4] + [mean * 0 + 3], -1)
        return [logits]

    def find_candidates(self, raw, conf):
        return decode(raw, self.anchors, self.strides, conf=conf)


def detect(pixels, views):
    empty = torch.zeros(0)
    batch = Batch(
        pixels,
        empty,
        empty,
        empty,
        empty,
        empty,
        [1],
        [LetterboxTransform(1, 1, 0, 0, *pixels.shape[2:])],
    )
    keep_all = Postprocess(0.5, lambda c, _: [Detections(c.boxes_xyxy, c.scores, c.labels)])
    hardware = Hardware.choose("cpu", "fp32", channels_last=False)
    ((image,),) = predict(
        Symmetric(),
        [batch],
        keep_all,
        hardware=hardware,
        tta_views=views,
    )
    return image.detections


def test_a_flipped_view_gives_the_same_detections_and_views_are_merged():
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pixels[:, :, 8:16, 40:48] = 255
    plain, flipped = detect(pixels, [TTAView()]), detect(pixels, [TTAView(flip=True)])
    assert len(plain.scores) == 1
    assert torch.allclose(plain.boxes_xyxy, flipped.boxes_xyxy)
    assert torch.allclose(plain.scores, flipped.scores)
    assert len(detect(pixels, [TTAView(), TTAView(flip=True)]).scores) == 2
