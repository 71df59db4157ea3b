import os
import shutil

import numpy as np
import pytest

from detector.data import ImageReader, load_data_yaml, read_split
from detector.data.checks import describe_findings
from detector.data.readers.voc import parse_voc
from detector.errors import UserError


def read(yaml, split="train"):
    config, root = load_data_yaml(str(yaml))
    return read_split(config, root, split)


def boxes(index):
    return [box.astype(int).tolist() for box in index.boxes_xyxy]


def edit(yaml, old, new, name="a"):
    path = yaml.parent / "Annotations" / f"{name}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_pixels_count_from_one_and_include_the_last(written):
    yaml = written("voc")
    assert boxes(read(yaml))[:2] == [[10, 5, 50, 40], [0, 0, 100, 60]]
    yaml.write_text(yaml.read_text() + "voc_zero_based: true\n")
    assert boxes(read(yaml))[:2] == [[11, 6, 50, 40], [1, 1, 100, 60]]


def test_difficult_objects_are_neither_object_nor_background(written):
    index = read(written("voc"))
    assert index.crowd.tolist() == [False, False, True, False]
    assert ImageReader(index).read(0).ignore_xyxy.tolist() == [[2, 3, 9, 31]]


@pytest.mark.parametrize("value", ["<difficult>Unspecified</difficult>", ""])
def test_objects_are_not_difficult_by_default(written, value):
    yaml = written("voc")
    edit(yaml, "<difficult>1</difficult>", value)
    assert not read(yaml).crowd.any()


def test_without_names_the_classes_are_those_that_occur(written):
    yaml = written("voc")
    yaml.write_text("root: .\n")
    edit(yaml, "fire truck", "aeroplane", "b.b")
    train, val = read(yaml), read(yaml, "val")
    assert train.names == val.names == ("aeroplane", "cat", "fire truck", "person")
    assert [train.names[label] for label in train.labels] == [
        *("cat", "person", "fire truck", "aeroplane"),
    ]
    assert train.category_ids.tolist() == val.category_ids.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        (
            "<xmin>11</xmin>",
            "<xmin>left</xmin>",
            "label not parsed",
            "cat: its bndbox does not have four numbers",
        ),
        ("<xmin>11</xmin>", "", "label not parsed", "cat: its bndbox does not have four numbers"),
        (
            "<name>cat</name>",
            "<name>cats</name>",
            "unknown class",
            "class 'cats' is not in `names`",
        ),
        ("<name>cat</name>", "", "unknown class", "class ''"),
        ("<xmin>11</xmin>", "<xmin>51</xmin>", "flat box", "has no area"),
        (
            "<xmin>11</xmin><ymin>6</ymin><xmax>50",
            "<xmin>111</xmin><ymin>6</ymin><xmax>150",
            "box outside",
            "",
        ),
        ("<xmin>11</xmin>", "<xmin>nan</xmin>", "not finite", "nan"),
    ],
)
def test_a_faulty_object_is_reported_and_the_others_are_used(written, old, new, kind, message):
    yaml = written("voc")
    edit(yaml, old, new)
    index = read(yaml)
    (finding,) = index.findings
    assert (finding.kind, finding.where) == (kind, "Annotations/a.xml: object 1")
    assert message in finding.what
    assert finding.skipped
    assert len(index.boxes_xyxy) == 3


def test_another_size_in_the_xml(written):
    yaml = written("voc")
    edit(yaml, "<width>100</width><height>60</height>", "<width>60</width><height>100</height>")
    index = read(yaml)
    (finding,) = index.findings
    assert (finding.kind, finding.skipped) == ("size mismatch", False)
    assert finding.what == "its label file says 60 x 100 pixels, the image has 100 x 60"
    assert index.sizes[0].tolist() == [60, 100]
    edit(yaml, "<size>", "<no>", "c d")
    (yaml.parent / "Annotations" / "c d.xml").write_text("<annotation/>")
    assert len(read(yaml).findings) == 1  # a file without a size is no fault


def test_an_image_with_a_broken_xml_is_skipped(written):
    yaml = written("voc")
    edit(yaml, "</annotation>", "")
    index = read(yaml)
    assert [(f.kind, f.where) for f in index.findings] == [
        ("label not parsed", "Annotations/a.xml")
    ]
    assert len(index) == 2


def test_an_unreadable_image_has_the_size_of_its_xml(written):
    yaml = written("voc")
    (yaml.parent / "JPEGImages" / "a.jpg").write_bytes(b"")
    index = read(yaml)
    assert [f.kind for f in index.findings] == ["unreadable image"]
    assert index.sizes[0].tolist() == [60, 100]
    assert len(index.boxes_xyxy) == 4


def test_images_and_xml_files_without_counterpart(written):
    yaml = written("voc")
    root = yaml.parent
    edit(yaml, "<filename>a.jpg<", "<filename>z.jpg<")
    (root / "Annotations" / "a.xml").rename(root / "Annotations" / "z.xml")
    (root / "JPEGImages" / "b.b.png").unlink()
    result = sorted((f.kind, f.where, f.skipped) for f in read(yaml).findings)
    assert result == [
        ("image without label", "JPEGImages/a.jpg", False),
        ("label without image", "Annotations/b.b.xml", True),
        ("label without image", "Annotations/z.xml", True),
        ("missing image", "JPEGImages/b.b", True),
    ]


def test_several_years(written):
    yaml = written("voc")
    root = yaml.parent
    before = read(yaml)
    for year in ("VOC2007", "VOC2012"):
        for folder in ("JPEGImages", "Annotations", "ImageSets"):
            shutil.copytree(root / folder, root / year / folder)
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        shutil.rmtree(root / folder)
    lists = "[VOC2007/ImageSets/Main/train.txt, VOC2012/ImageSets/Main/val.txt]"
    yaml.write_text(f"names: [person, cat, fire truck]\ntrain: {lists}\nval: {lists}\n")
    index = read(yaml)
    assert index.files[0] == "VOC2007/JPEGImages/a.jpg"
    assert index.files[3] == "VOC2012/JPEGImages/e.jpg"
    assert boxes(index)[:4] == boxes(before)
    assert not index.findings


def test_a_list_of_one_class(written):
    yaml = written("voc")
    path = yaml.parent / "ImageSets" / "Main" / "train.txt"
    path.write_text("a  1\nb.b -1\nc d  0\n")
    assert read(yaml).files.tolist() == [
        "JPEGImages/a.jpg",
        "JPEGImages/b.b.png",
        "JPEGImages/c d.jpg",
    ]


def test_images_and_xml_in_one_folder(written):
    yaml = written("voc")
    root = yaml.parent
    before = read(yaml)
    for split, names in (("train", ("a.jpg", "b.b.png", "c d.jpg")), ("val", ("e.jpg", "f.jpg"))):
        (root / split).mkdir()
        for name in names:
            (root / "JPEGImages" / name).rename(root / split / name)
            xml = f"{name.rpartition('.')[0]}.xml"
            (root / "Annotations" / xml).rename(root / split / xml)
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        shutil.rmtree(root / folder)
    index = read(yaml)
    assert np.array_equal(index.boxes_xyxy, before.boxes_xyxy)
    assert index.files.tolist() == ["train/a.jpg", "train/b.b.png", "train/c d.jpg"]
    assert "xml files in train/" in index.notes[0]
    assert not index.findings


def test_unusable_data_sets(written):
    yaml = written("voc")
    lists = yaml.parent / "ImageSets" / "Main"
    (lists / "train.txt").write_text("")
    with pytest.raises(UserError, match="the split `train` has no images"):
        read(yaml)
    (lists / "train.txt").unlink()
    with pytest.raises(UserError, match=r"no split `train`; expected for Pascal VOC: ImageSets"):
        read(yaml)
    yaml.write_text("format: voc\ntrain: nowhere.txt\nval: x\nnames: [a]\n")
    with pytest.raises(UserError, match=r"nowhere\.txt: no such list of images or folder"):
        read(yaml)


def test_no_xml_at_all(written):
    yaml = written("voc")
    shutil.rmtree(yaml.parent / "Annotations")
    yaml.write_text(f"format: voc\n{yaml.read_text()}")
    with pytest.raises(UserError, match="none of the 3 images of `train` has a label file"):
        read(yaml)


def test_entities_do_not_blow_up():
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol"}">' for n in range(10))
    result = parse_voc(f"<!DOCTYPE a [{bomb}]><annotation>&e9;</annotation>".encode(), lambda _: 0)
    assert not result.usable


def test_the_whole_line_of_a_list_is_the_name(written):
    yaml = written("voc")
    root = yaml.parent
    for name in ("photo", "photo 1", "scan -1"):
        shutil.copy(root / "JPEGImages" / "a.jpg", root / "JPEGImages" / f"{name}.jpg")
        shutil.copy(root / "Annotations" / "a.xml", root / "Annotations" / f"{name}.xml")
    (root / "ImageSets" / "Main" / "train.txt").write_text("photo 1\nphoto 0\nscan -1\n")
    index = read(yaml)
    assert index.files.tolist() == ["JPEGImages/photo 1.jpg", "JPEGImages/scan -1.jpg"]
    assert [f.where for f in index.findings] == ["JPEGImages/photo 0"]


def test_images_that_differ_in_their_suffix(written):
    yaml = written("voc")
    root = yaml.parent
    shutil.copy(root / "JPEGImages" / "b.b.png", root / "JPEGImages" / "a.png")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a.jpg\n")
    assert read(yaml).files.tolist() == ["JPEGImages/a.jpg"]


@pytest.mark.parametrize("word", ["True", "true", "1", "yes"])
def test_words_for_difficult(written, word):
    yaml = written("voc")
    edit(yaml, "<difficult>1<", f"<difficult>{word}<")
    assert read(yaml).crowd.tolist() == [False, False, True, False]


def find(index):
    return [(f.kind, f.where, f.skipped) for f in index.findings]


def write_list(yaml, *lines):
    (yaml.parent / "ImageSets" / "Main" / "train.txt").write_text("\n".join(lines))


def copy_into(yaml, folder):
    """Copies image and xml file `a` into a subfolder; the original then has no objects."""
    root = yaml.parent
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (root / kind / folder).mkdir()
        shutil.copy(root / kind / f"a.{suffix}", root / kind / folder)
    (root / "Annotations" / "a.xml").write_text("<annotation/>")


@pytest.mark.parametrize(
    "line", ["sub/a", "sub/a.jpg", "JPEGImages/sub/a.jpg", r"sub\a", "./sub/a"]
)
def test_a_line_with_a_folder_is_the_image_in_it(written, line):
    yaml = written("voc")
    copy_into(yaml, "sub")
    write_list(yaml, line, "b.b")
    index = read(yaml)
    assert index.files.tolist() == ["JPEGImages/sub/a.jpg", "JPEGImages/b.b.png"]
    assert boxes(index)[:2] == [[10, 5, 50, 40], [0, 0, 100, 60]]
    assert not index.findings


def test_an_absolute_line_is_the_image_there(written, tmp_path):
    yaml = written("voc")
    shutil.copytree(yaml.parent, tmp_path / "other")
    (yaml.parent / "JPEGImages" / "a.jpg").unlink()
    line = f"{tmp_path}/other/JPEGImages/a.jpg"
    write_list(yaml, line, "b.b")
    index = read(yaml)
    assert index.files.tolist() == [line, "JPEGImages/b.b.png"]
    assert boxes(index)[0] == [10, 5, 50, 40]
    assert find(index) == [("label without image", "Annotations/a.xml", True)]


def test_images_in_subfolders_with_all_xml_files_in_one_folder(written):
    yaml = written("voc")
    images, labels = yaml.parent / "JPEGImages", yaml.parent / "Annotations"
    (images / "sub").mkdir()
    shutil.copy(images / "a.jpg", images / "sub" / "new.jpg")
    shutil.copy(images / "a.jpg", images / "sub" / "b.b.jpg")
    text = (
        (labels / "a.xml").read_text().replace("<filename>a", "<folder>sub</folder><filename>new")
    )
    (labels / "new.xml").write_text(text)
    write_list(yaml, "sub/new", "sub/b.b")
    index = read(yaml)
    assert index.starts.tolist() == [0, 3, 3]
    # Annotations/b.b.xml is that of JPEGImages/b.b.png
    assert find(index) == [("image without label", "JPEGImages/sub/b.b.jpg", False)]


@pytest.mark.parametrize("line", ["/home/joe/VOC/JPEGImages/a.jpg", r"C:\VOC\a.jpg", "gone/a"])
def test_a_line_whose_folder_does_not_exist_is_told(written, line):
    yaml = written("voc")
    write_list(yaml, line, "b.b")
    index = read(yaml)
    assert index.files.tolist() == ["JPEGImages/a.jpg", "JPEGImages/b.b.png"]
    assert find(index) == [("image elsewhere", "JPEGImages/a.jpg", False)]
    assert index.findings[0].what == f"the list says {line}, which does not exist"
    (told,) = describe_findings({"train": index})
    assert told.startswith(
        "labels: image elsewhere: 1 of 2 images; JPEGImages/a.jpg: the list says"
    )


@pytest.mark.parametrize("line", ["a", "IMG_1", "IMG_1.JPG"])
@pytest.mark.parametrize("folder", ["", "wrong", "JPEGImages"])
def test_an_xml_file_of_another_name_belongs_to_the_image_that_it_names(written, line, folder):
    yaml = written("voc")
    images = yaml.parent / "JPEGImages"
    (images / "a.jpg").rename(images / "IMG_1.JPG")
    edit(yaml, "<filename>a.jpg<", f"<folder>{folder}</folder><filename>IMG_1.JPG<")
    write_list(yaml, line, "b.b")
    index = read(yaml)
    assert index.files.tolist() == ["JPEGImages/IMG_1.JPG", "JPEGImages/b.b.png"]
    assert boxes(index)[:2] == [[10, 5, 50, 40], [0, 0, 100, 60]]
    assert find(index) == [("image elsewhere", "JPEGImages/IMG_1.JPG", False)]
    shutil.copy(images / "IMG_1.JPG", images / "a.jpg")
    write_list(yaml, "a", "b.b")
    # the name of the xml file comes before what is in it
    assert read(yaml).files[0] == "JPEGImages/a.jpg"


def test_xml_files_in_capitals_and_some_that_cannot_be_read(written):
    yaml = written("voc")
    labels, before = yaml.parent / "Annotations", read(yaml)
    (labels / "a.xml").rename(labels / "a.XML")
    os.mkfifo(labels / "x.xml")
    (labels / "y.xml").write_bytes(b"<annotation><filename>\xff</filename>")
    index = read(yaml)
    assert np.array_equal(index.boxes_xyxy, before.boxes_xyxy)
    assert [where for _, where, _ in find(index)] == ["Annotations/x.xml", "Annotations/y.xml"]
