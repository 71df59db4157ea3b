"""Which image and which xml file belong together: what VOC's lists and xml files call an image.

A line of a list is the name of an image, with or without its suffix, and maybe a folder before it. An xml
file has its image's name; if it has not, its <folder> and <filename> say whose it is. Exporters write
wrong folders, and wrong file names, too: so what exists under the whole line, or under the name of the
xml file, comes first.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from detector.config import find_written
from detector.data.readers.image_label_pairs import FolderListings, file_stem, has_image_suffix
from detector.data.store.image_files import SUFFIXES
from detector.errors import read_regular_file

IMAGE_FOLDERS, LABEL_FOLDERS = ("JPEGImages", "images"), ("Annotations", "annotations")


class VocImages:
    """The images and xml files of one VOC folder, such as VOC2007.

    Attributes:
        images, labels: its folders of images and of xml files, which may be the same.
        label_of: image -> xml file of another name that names it; both are paths.
        orphans: paths of the xml files without an image.
    """

    def __init__(self, base: Path, folders: FolderListings) -> None:
        """`base`: has JPEGImages and Annotations, or the images themselves."""
        self.images = _find_subfolder(base, IMAGE_FOLDERS)
        self.labels = _find_subfolder(base, LABEL_FOLDERS)
        self._bases, self._folders = (self.images, str(base)), folders
        self._stems: dict[str, dict[str, str]] = {}
        self.label_of: dict[str, str] = {}
        self.orphans: list[str] = []
        known = self._files_by_stem(self.images)
        for name in sorted(folders[self.labels]):
            if not name.endswith((".xml", ".XML")) or name[:-4] in known:
                continue
            label = f"{self.labels}{os.sep}{name}"
            image = self._find_image_of(label)
            known_label = None if image is None else self.find_label(image)
            if image is not None and known_label is None:
                self.label_of[image] = label
            elif known_label != label:
                self.orphans.append(label)

    def list_images(self) -> list[str]:
        """The names of all images, sorted."""
        return [name for name in sorted(self._folders[self.images]) if has_image_suffix(name)]

    def find(self, line: str) -> str | None:
        """The path of the image that the whole line of a list names; None if there is none."""
        return self._locate(find_written(line, lambda text: self._locate(text) is not None))

    def find_elsewhere(self, line: str) -> str | None:
        """The path of an image that a line without one must mean.

        That is the image of this name, where the folder before it does not exist, as in lists from
        another machine; or the image that the xml file of this name is of.
        """
        folder, name = os.path.split(line.replace("\\", "/"))
        image = self._match(self.images, name) if folder else None
        if image is not None:
            return image
        stem = _remove_image_suffix(name)
        return next(
            (image for image, label in self.label_of.items() if Path(label).stem == stem), None
        )

    def find_label(self, image: str) -> str | None:
        """The path of the xml file of an image; None if it has none."""
        folder, name = os.path.split(image)
        stem, labels = file_stem(name), self._find_label_folder(folder)
        if labels is None and stem not in self._files_by_stem(self.images):
            labels = self.labels  # all xml files are in one folder; none is of another image
        names = self._folders[labels] if labels is not None else set[str]()
        for label in (f"{stem}.xml", f"{stem}.XML"):
            if label in names:
                return f"{labels}{os.sep}{label}"
        return self.label_of.get(image)

    def _find_label_folder(self, images: str) -> str | None:
        """The folder of xml files that belongs to a folder of images; None if it has none."""
        if images == self.images:
            return self.labels
        inside = images.removeprefix(f"{self.images}{os.sep}")
        places = [f"{self.labels}{os.sep}{inside}"] if inside != images else []
        parent, last = os.path.split(images)
        if last in IMAGE_FOLDERS:
            places += [f"{parent}{os.sep}{name}" for name in LABEL_FOLDERS]
        return next((place for place in places if Path(place).is_dir()), None)

    def _locate(self, line: str) -> str | None:
        """The path of the image that a line names: below its folders, or absolute."""
        folder, name = os.path.split(line)
        places = dict.fromkeys(os.path.normpath(f"{base}/{folder}") for base in self._bases)
        if not folder:
            places = [self.images]
        elif os.path.isabs(folder):  # noqa: PTH117  # as fast as the rest
            places = [os.path.normpath(folder)]
        return next((found for place in places if (found := self._match(place, name))), None)

    def _match(self, folder: str, name: str) -> str | None:
        """The path of an image in a folder by its name, with or without its suffix."""
        if name not in self._folders[folder] or not has_image_suffix(name):
            found = self._files_by_stem(folder).get(_remove_image_suffix(name))
            return None if found is None else f"{folder}{os.sep}{found}"
        return f"{folder}{os.sep}{name}"

    def _files_by_stem(self, folder: str) -> dict[str, str]:
        """The image files of a folder by their name without suffix."""
        if folder not in self._stems:
            images = sorted(filter(has_image_suffix, self._folders[folder]))
            self._stems[folder] = {file_stem(name): name for name in images}
        return self._stems[folder]

    def _find_image_of(self, label: str) -> str | None:
        """The path of the image that is named in an xml file; None if there is none."""
        try:
            tree = ElementTree.fromstring(read_regular_file(Path(label)))
        except (ElementTree.ParseError, ValueError, LookupError):  # ValueError: a UserError, too
            return None
        folder, name = (_read_text(tree, key) for key in ("folder", "filename"))
        if not name:
            return None
        return (self.find(f"{folder}/{name}") if folder else None) or self.find(name)


def _read_text(tree: ElementTree.Element, key: str) -> str:
    text = (tree.findtext(key) or "").strip()
    return "" if "\0" in text else text


def _remove_image_suffix(name: str) -> str:
    return file_stem(name) if name.lower().endswith(SUFFIXES) else name


def _find_subfolder(base: Path, names: Sequence[str]) -> str:
    return str(next((base / name for name in names if (base / name).is_dir()), base))
