"""Runs of two arms with one seed start from the same weights and see the same images."""

import pytest
import torch

from detector import build
from detector.structures import Batch
from detector.study.plan import make_request, parse_variations
from tests.commands.running import SMALL
from tests.study.made_up import make_study

VARIED = ("model.activation=mish,relu", "loss.box_loss=ciou,giou", "train.lr=0.1,0.01")


@pytest.fixture(scope="module")
def starts(tmp_path_factory, digits_root):
    """By arm and seed: the initial weights, and the first batches of two epochs."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(f"format: coco\nroot: {digits_root}\nmirrors: false\n")
    study = make_study(
        arms=tuple(parse_variations(VARIED)),
        seeds=(0, 1),
        data=str(folder / "small.yaml"),
        words=(*SMALL, "data.size=64", "train.batch_size=2", "model.anchors=published"),
    )
    runs = study.list_runs()
    chosen = [runs[0], runs[7], runs[8]]  # first and last arm of a seed, first arm of another
    return [start_run(make_request(study, folder, run).load_config()) for run in chosen]


def start_run(config) -> tuple[dict[str, torch.Tensor], list[Batch]]:
    data = build.build_data(config)
    torch.manual_seed(config.train.seed)
    model = build.build_model(config.model, len(data.names), build.build_dropblock(config.bag))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    loader = build.build_train_loader(config, data.train, pin_memory=False)
    return weights, [next(iter(loader.epoch(number))) for number in (0, 1)]


def test_the_same_seed_gives_the_same_start(starts):
    (first, _), (second, _), (other, _) = starts
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_same_seed_gives_the_same_images_and_augmentation(starts):
    (_, first), (_, second), (_, other) = starts
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.boxes_xyxy, two.boxes_xyxy)
    assert not torch.equal(first[0].images, other[0].images)
    assert not torch.equal(first[0].images, first[1].images)
