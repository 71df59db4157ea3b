import torch

from detector.decode import Decoder
from detector.evaluation import TTAView, make_tta_views, predict
from detector.postprocess import Postprocess
from detector.structures import Batch, Candidates, Detections, LetterboxTransform


def some(boxes):
    n = len(boxes)
    return Candidates(torch.zeros(n).long(), boxes, torch.ones(n), torch.zeros(n).long())


def test_an_object_is_found_back_where_it_was():
    """A white box, found as the extent of what is bright, comes back to its place from every view."""
    images = torch.zeros(1, 3, 96, 128)
    images[:, :, 20:60, 30:90] = 1
    for view in make_tta_views((0.5, 0.8, 1.0, 1.4), flip=True):
        seen = view.look(images, 32)
        assert seen.shape[2] % 32 == seen.shape[3] % 32 == 0
        rows, columns = (seen[0, 0] > 0.5).nonzero(as_tuple=True)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        back = view.back(some(box[None]), images, 32).boxes_xyxy[0]
        assert (back - torch.tensor([30.0, 20, 90, 60])).abs().max() <= 1 / view.scale, view


def test_the_plain_view_is_the_image():
    images = torch.rand(2, 3, 64, 64)
    boxes = torch.rand(5, 4)
    assert TTAView().look(images, 32) is images
    assert TTAView().back(some(boxes), images, 32).boxes_xyxy is boxes
    assert make_tta_views((1.0,), flip=False) == (TTAView(),)


class Symmetric(torch.nn.Module):
    """Gives each cell the mean of its pixels as logits, for whatever there is to see."""

    anchors = torch.tensor([[[20.0, 20.0]]])
    strides = (8,)
    decoder = Decoder()

    def forward(self, images):
        mean = torch.nn.functional.avg_pool2d(images[:, :1], 8)[:, :, :, :, None]
        logits = torch.cat([mean * 0] * 4 + [mean * 8 - 4] + [mean * 0 + 3], -1)
        return [logits]


def found_in(pixels, views):
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
    keep_all = Postprocess(
        0.5, lambda found, _: [Detections(found.boxes_xyxy, found.scores, found.labels)]
    )
    ((found,),) = predict(
        Symmetric(),
        [batch],
        keep_all,
        device=torch.device("cpu"),
        memory_format=torch.contiguous_format,
        autocast=lambda: torch.autocast("cpu", enabled=False),
        views=views,
    )
    return found.detections


def test_a_mirrored_view_finds_the_same_and_views_are_joined():
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pixels[:, :, 8:16, 40:48] = 255
    plain, mirrored = found_in(pixels, [TTAView()]), found_in(pixels, [TTAView(flip=True)])
    assert len(plain.scores) == 1
    assert torch.allclose(plain.boxes_xyxy, mirrored.boxes_xyxy)
    assert torch.allclose(plain.scores, mirrored.scores)
    assert len(found_in(pixels, [TTAView(), TTAView(flip=True)]).scores) == 2
