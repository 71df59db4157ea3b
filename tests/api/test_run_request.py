"""From a user's options to a config, weights and folders; and the summary of several seeds."""

from pathlib import Path

import pytest

from detector.api.run_request import RunRequest
from detector.api.train import format_seed_summary
from detector.errors import UserError

REQUEST = RunRequest("yolov4-pacsp-n-mish", Path("runs/mine"), ("train.epochs=3",))


def test_a_seed_changes_config_and_folder_only():
    seeded = REQUEST.with_seed(5)
    assert seeded.folder == Path("runs/mine-seed5")
    before, after = REQUEST.load_config(), seeded.load_config()
    assert (before.train.epochs, before.train.seed) == (3, 0)
    assert (after.train.epochs, after.train.seed) == (3, 5)
    assert REQUEST.folder == Path("runs/mine")


def test_weights_are_recorded_by_their_full_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = RunRequest("yolov4-pacsp-n-mish", Path("runs/mine"), weights=Path('odd "name".pt'))
    config = request.load_config()
    assert config.train.weights == str(tmp_path / 'odd "name".pt')
    with pytest.raises(UserError, match="no such"):
        request.load_weights(config)


def test_no_weights():
    assert REQUEST.load_weights(REQUEST.load_config()) is None


def test_summary_of_seeds():
    assert format_seed_summary([3, 5], [0.25, 0.35]) == (
        "AP by seed  3: 0.2500  5: 0.3500  mean 0.3000, standard deviation 0.0707"
    )
    assert format_seed_summary(["7"], [0.5]) == "AP by seed  7: 0.5000  mean 0.5000"
