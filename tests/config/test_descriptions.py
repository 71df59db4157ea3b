"""The YAML files of the project in a checkout and in a wheel, whose data is under the current folder."""

import shutil
from pathlib import Path

import pytest

from detector.config import (
    Config,
    content_folder,
    description_folder,
    descriptions,
    find_file,
    folder_of,
    load_config,
    replace_values,
)
from detector.data.readers.data_yaml import load_data_yaml
from detector.errors import UserError
from tests.commands.running import load_setup

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The package as a wheel has it, run from another folder; returns the folder of the YAML files."""
    folder = tmp_path / "site-packages" / "detector" / "descriptions"
    for path in load_setup(monkeypatch).list_descriptions():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, folder / path)
    monkeypatch.setattr(descriptions, "BUNDLED", folder)
    monkeypatch.setattr(descriptions, "INSTALLED", True)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return folder


def test_in_a_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find_file("digits", "data") == ROOT / "data" / "digits.yaml"
    assert description_folder("configs") == ROOT / "configs"
    assert content_folder("weights") == ROOT / "weights"
    assert folder_of(ROOT / "data" / "digits.yaml", "data") == ROOT / "data"


def test_in_a_wheel(wheel):
    assert find_file("digits.yaml", "data") == wheel / "data" / "digits.yaml"
    assert content_folder("weights") == Path.cwd() / "weights"
    config = load_config("yolov4-pacsp-n-mish", data="digits")
    assert config.data.dataset == "digits.yaml"  # found from wherever the run is resumed
    with pytest.raises(UserError, match=r"did you mean yolov4-pacsp-n-mish\.yaml"):
        load_config("yolov4-pacsp-n-mihs")


def test_data_of_a_wheel_is_under_the_current_folder(wheel):
    (Path.cwd() / "data" / "coco").mkdir(parents=True)
    assert load_data_yaml("coco.yaml")[1] == Path.cwd() / "data" / "coco"
    shutil.rmtree("data")
    with pytest.raises(UserError, match="here/data/coco does not exist"):
        load_data_yaml("coco.yaml")


def test_a_users_file_comes_first_and_its_paths_count_from_itself(wheel, tmp_path):
    mine = tmp_path / "elsewhere" / "digits.yaml"
    (mine.parent / "pictures").mkdir(parents=True)
    mine.write_text("root: pictures\n")
    assert load_data_yaml(str(mine))[1] == mine.parent / "pictures"
    shutil.copytree(mine.parent, Path.cwd(), dirs_exist_ok=True)
    assert load_data_yaml("digits.yaml")[1] == Path.cwd() / "pictures"
    config = replace_values(Config(), {"data.dataset": "digits.yaml"})
    assert load_config("yolov4-pacsp-n-mish", data="digits.yaml") != config
    assert Path(load_config("yolov4-pacsp-n-mish", data="digits.yaml").data.dataset).is_absolute()


def test_every_description_goes_into_a_wheel(monkeypatch):
    listed = load_setup(monkeypatch).list_descriptions()
    folders = ("configs", "configs/paper", "data", "weights")
    on_disk = [path for name in folders for path in (ROOT / name).glob("*.yaml")]
    assert {ROOT / path for path in listed} == set(on_disk)
