"""Changes to a validated config are validated as well."""

import pytest

from detector.config import (
    Config,
    DecoderConfig,
    ModelConfig,
    config_to_dict,
    load_config,
    replace_values,
)
from detector.errors import UserError


def test_only_the_named_keys_change():
    before = load_config("yolov4-pacsp-n-mish", ["bag=yolov4", "train.lr=0.02"])
    after = replace_values(before, {"train.batch_size": 3, "model.anchors": (((1.0, 2.0),),)})
    assert (after.train.batch_size, after.model.anchors) == (3, (((1.0, 2.0),),))
    values, expected = config_to_dict(after), config_to_dict(before)
    expected["train"]["batch_size"], expected["model"]["anchors"] = 3, [[[1.0, 2.0]]]
    assert values == expected
    assert replace_values(before, {}) == before


@pytest.mark.parametrize(
    "activation",
    [
        "mish",
        {"name": "leaky_relu", "negative_slope": 0.2},
        {"backbone": "mish", "neck": {"name": "leaky_relu", "negative_slope": 0.2}, "head": "relu"},
    ],
)
def test_every_form_of_a_value_survives(activation):
    before = ModelConfig.model_validate({"activation": activation})
    decoder = DecoderConfig(size="exp", scale_x_y=(1.0,))
    after = replace_values(before, {"decoder": decoder})
    assert after.activation == before.activation
    assert after.decoder == decoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.lrr": 0.1}, "config: unknown key train.lrr; did you mean train.lr?"),
        ({"train.epochs": "many"}, "config: train.epochs: should be a valid integer, not 'many'"),
        ({"data.size": 100}, "config: data: size 100 is not a multiple of the largest stride"),
    ],
)
def test_mistakes_are_refused(changes, message):
    with pytest.raises(UserError) as caught:
        replace_values(Config(), changes)
    assert str(caught.value).startswith(message)
