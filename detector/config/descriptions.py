"""Where the YAML files of the project are: configs/, data/ and weights/.

A checkout has them at its top level. A wheel has copies inside the package (`setup.py` makes them);
then what belongs beside them, data sets and weights, goes under the current folder.
"""

from pathlib import Path

from detector.config.written_paths import find_written
from detector.errors import UserError
from detector.registry import nearest

PACKAGE = Path(__file__).resolve().parents[1]
BUNDLED = PACKAGE / "descriptions"  # setup.py names it too
INSTALLED = BUNDLED.is_dir()  # from a wheel; False in a checkout and for an editable install


def description_folder(name: str) -> Path:
    """The folder of the project's own YAML files: `configs`, `data` or `weights`."""
    return (BUNDLED if INSTALLED else PACKAGE.parent) / name


def content_folder(name: str) -> Path:
    """Where data sets (`data`) and downloads (`weights`) are: in the checkout or the current folder."""
    return (Path.cwd() if INSTALLED else PACKAGE.parent) / name


def find_file(name: str, folder: str) -> Path:
    """A YAML by its path, or by its bare name among the project's own.

    Args:
        name: a path, or a file name with or without `.yaml`.
        folder: `configs` or `data`, where bare names are looked up.

    Raises:
        UserError: there is no such file; names the nearest one.
    """
    own = description_folder(folder)

    def find(name: str) -> Path | None:
        names = (name, f"{name}.yaml")
        return next(filter(is_file, [*map(Path, names), *(own / n for n in names)]), None)

    path = find(find_written(name, lambda written: find(written) is not None))
    if path is not None:
        return path
    if _is_special(Path(name)):
        raise UserError(f"{name}: cannot be read: it is a device or a pipe, not a file")
    known = sorted(path.name for path in own.glob("*.yaml"))
    hint = nearest(Path(name).name, known) or f" ({folder}/ has: {', '.join(known)})"
    raise UserError(f"{name}: no such file, here or in {folder}/{hint}")


def is_file(path: Path) -> bool:
    """Whether there is a file; False for names that a system cannot have."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def _is_special(path: Path) -> bool:
    """Whether this exists and is neither a file nor a folder."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return False


def is_description(path: Path, folder: str) -> bool:
    """Whether a file is one of the project's own, which its bare name finds from anywhere."""
    return path.parent == description_folder(folder)


def folder_of(path: Path, folder: str) -> Path:
    """The folder that relative paths in a YAML count from: its own or, in a wheel, the current one's.

    Args:
        path: of the YAML.
        folder: `data`.
    """
    inside = INSTALLED and is_description(path.resolve(), folder)
    return content_folder(folder) if inside else path.parent
