"""tools/landscape.py: slices, surfaces, outputs of random networks, mistakes."""

import json

import numpy as np
import pytest

from tests.commands.running import SMALL

FEW = ["--steps", 3, "--images", 2]


@pytest.fixture
def weights(tool, digits_yaml):
    words = ["--cfg", "yolov4-pacsp-n-leaky", "--data", digits_yaml, *SMALL, "--epochs", 1]
    assert tool("train", *words, "--batch-limit", 1, "--out", "runs/a")[0] == 0
    return "runs/a/last.pt"


def test_a_slice_of_a_detector_is_resumed(tool, weights, tmp_path):
    words = ["--weights", weights, "--slice", *FEW, "--out", "l", "data.workers=0"]
    status, out, err = tool("landscape", *words)
    assert status == 0, err
    values = np.load(tmp_path / "l/a-slice.npz")["values"]
    assert values.shape == (3,)
    result = json.loads((tmp_path / "l/landscape.json").read_text())["results"]["a"]
    assert result["centre"] == pytest.approx(values[1])
    assert tool("landscape", *words)[1] == out  # nothing is left to compute
    status, _, err = tool("landscape", *words, "--seed", 1)
    assert status == 2
    assert "a-slice.npz: has values of other weights, images or steps" in err


def test_outputs_of_random_networks(tool, tmp_path, real_figures):
    status, out, err = tool(
        "landscape", "--output", "relu", "identity", "--steps", 5, "--range", 2, "--out", "o"
    )
    assert status == 0, err
    assert (tmp_path / "o/landscape.png").stat().st_size > 10_000
    linear = np.load(tmp_path / "o/identity-output.npz")["values"]
    np.testing.assert_allclose(linear + linear[::-1, ::-1], 2 * linear[2, 2], atol=1e-5)
    assert "relu: centre " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "a.pt", "--steps", 4], "--steps 4: expected an odd number of at least 3"),
        (["--output", "mish", "--slice"], "--output has no weights: remove --slice"),
        (["--output", "mihs"], "did you mean mish"),
        (["--weights", "none.pt"], "none.pt: no such checkpoint"),
    ],
)
def test_mistakes(tool, words, message):
    status, _, err = tool("landscape", *words)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
