"""CIFAR and MNIST: tiny files in their formats, through torchvision's own readers."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

from detector.data import ImageReader, list_splits, load_data_yaml, read_split
from detector.data.checks import check_dataset
from detector.data.store.fingerprint import fingerprint
from detector.data.writers.convert import write_coco
from detector.errors import UserError

RNG = np.random.default_rng(0)


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path.name, hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Two training files of three images and a test file of two, with MD5 sums that are theirs."""
    folder = tmp_path / "files" / "cifar-10-batches-py"
    batches = []
    for name, labels in (
        ("data_batch_1", [3, 0, 9]),
        ("data_batch_2", [1, 1, 2]),
        ("test", [9, 0]),
    ):
        pixels = RNG.integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
        batches.append(write_pickle(folder / name, {"data": pixels, "labels": labels}))
    names = [f"class {number}" for number in range(10)]
    name, md5 = write_pickle(folder / "batches.meta", {"label_names": names})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", batches[:2])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", batches[2:])
    meta = {"filename": name, "md5": md5, "key": "label_names"}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return write_yaml(tmp_path, "cifar10"), folder


def write_idx(path, values):
    magic = 2048 + values.ndim
    head = np.array([magic, *values.shape], ">i4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.tobytes() + values.astype(np.uint8).tobytes())


def write_mnist(folder):
    for split, count in (("train", 4), ("t10k", 3)):
        images = RNG.integers(0, 256, (count, 28, 28))
        write_idx(folder / f"{split}-images-idx3-ubyte", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte", np.arange(count) * 3)


def write_yaml(tmp_path, form):
    path = tmp_path / f"{form}.yaml"
    path.write_text(f"format: {form}\nroot: files\n")
    return path


def read(yaml, split):
    return read_split(*load_data_yaml(str(yaml)), split)


def test_cifar_is_read_as_torchvision_reads_it(cifar):
    yaml, folder = cifar
    for split in ("train", "val"):
        index = read(yaml, split)
        theirs = datasets.CIFAR10(folder.parent, train=split == "train")
        reader = ImageReader(index, 32)
        assert len(index) == len(theirs)
        for number, (image, label) in enumerate(theirs):
            sample = reader.read(number)
            assert np.array_equal(sample.image, np.asarray(image))
            assert sample.labels.tolist() == [label]
            assert sample.boxes_xyxy.tolist() == [[0, 0, 32, 32]]
    assert index.names == tuple(f"class {number}" for number in range(10))
    assert list_splits(*load_data_yaml(str(yaml))) == ["train", "val"]


def test_only_the_published_pickles_are_opened(cifar):
    yaml, folder = cifar
    opened = folder / "opened"

    class Trap:
        def __reduce__(self):
            return opened.touch, ()

    (folder / "data_batch_2").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"data_batch_2: not the published file of CIFAR-10"):
        read(yaml, "train")
    assert not opened.exists()


def test_a_missing_file_is_named_with_its_place(cifar, tmp_path):
    yaml, folder = cifar
    (folder / "test").unlink()
    with pytest.raises(UserError) as raised:
        read(yaml, "val")
    text = str(raised.value)
    assert text.startswith(f"{folder / 'test'}: no such file; get cifar-10-python.tar.gz")
    assert text.endswith(f"unpack it in {folder.parent}")
    assert "\n" not in text
    other = tmp_path / "other.yaml"
    other.write_text("format: cifar100\nroot: nowhere\n")
    with pytest.raises(UserError, match=r"nowhere/cifar-100-python/train: no such file"):
        read(other, "train")


def test_cifar_100_takes_the_fine_labels(tmp_path, monkeypatch):
    folder = tmp_path / "files" / "cifar-100-python"
    content = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [7, 1]}
    files = [write_pickle(folder / name, content) for name in ("train", "test")]
    names = [f"fine {number}" for number in range(100)]
    name, md5 = write_pickle(folder / "meta", {"fine_label_names": names})
    monkeypatch.setattr(datasets.CIFAR100, "train_list", files[:1])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", files[1:])
    meta = {"filename": name, "md5": md5, "key": "fine_label_names"}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    index = read(write_yaml(tmp_path, "cifar100"), "train")
    assert index.labels.tolist() == [7, 1]
    assert index.names == tuple(names)


@pytest.mark.parametrize(("form", "name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_is_read_in_grey(tmp_path, form, name):
    folder = tmp_path / "files" / name / "raw"
    write_mnist(folder)
    yaml = write_yaml(tmp_path, form)
    index = read(yaml, "val")
    theirs = getattr(datasets, name)(tmp_path / "files", train=False)
    sample = ImageReader(index).read(2)
    assert sample.image.shape == (28, 28, 3)
    for channel in range(3):
        assert torch.equal(torch.from_numpy(sample.image[..., channel]), theirs.data[2])
    assert index.labels.tolist() == [0, 3, 6]
    assert index.names[1] == ("1" if form == "mnist" else "Trouser")
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + bytes(40))
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte: not a file of .*MNIST"):
        read(yaml, "train")
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(
        UserError, match=r"get train-labels-idx1-ubyte.gz .* and unpack it in .*/raw"
    ):
        read(yaml, "train")


def test_the_other_commands_know_that_there_are_no_image_files(cifar, tmp_path):
    yaml, _ = cifar
    index = read(yaml, "train")
    report = check_dataset("cifar", {"train": index}, size=32)
    assert report.scan == "images not opened"
    write_coco(index, tmp_path / "coco", "train")
    copied = read_split(*load_data_yaml(str(write_coco_yaml(tmp_path))), "train")
    for number in (0, 5):
        image = ImageReader(copied).read(number).image
        assert np.array_equal(image, index.pixels[number])
    before = fingerprint(index)["digest"]
    index.pixels[0, 0, 0, 0] ^= 1
    assert fingerprint(index)["digest"] != before


def write_coco_yaml(tmp_path):
    path = tmp_path / "coco.yaml"
    path.write_text("format: coco\nroot: coco\n")
    return path


def test_keys_that_the_files_decide(cifar):
    yaml, _ = cifar
    for line, message in (
        ("names: [a, b]\n", "`names:` is given by the files of CIFAR-10"),
        ("train: somewhere\n", "`train:` is given by the files of CIFAR-10"),
    ):
        yaml.write_text(f"format: cifar10\nroot: files\n{line}")
        with pytest.raises(UserError, match=message):
            read(yaml, "train")
    yaml.write_text("format: cifar10\nroot: files\n")
    with pytest.raises(UserError, match="CIFAR-10 has no split `test`"):
        read(yaml, "test")
