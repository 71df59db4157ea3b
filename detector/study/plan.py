"""A study: arms x seeds x folds, the runs that it consists of, and the file that describes it."""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detector.api.run_request import RunRequest
from detector.build import build_network
from detector.data import Pool, read_pool, write_folds
from detector.engine import RunFolder
from detector.errors import UserError, read_regular_file, replace_text
from detector.registry import nearest
from detector.study.published_values import PublishedValue

DESCRIPTION = "study.json"


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the variants that a study compares.

    Attributes:
        name: unique in the study, and usable as a folder's name.
        words: `key=value`, what the arm changes.
    """

    name: str
    words: tuple[str, ...]

    def find(self, key: str) -> list[str]:
        """The words that set a key: one, or none."""
        return [word for word in self.words if word.startswith(f"{key}=")]


@dataclass(frozen=True, slots=True)
class Run:
    """One training of a study. Runs of different arms with the same seed and fold are a pair.

    Attributes:
        arm: what it varies.
        seed: `train.seed`.
        fold: of the cross-validation, counted from 0; None without one.
    """

    arm: Arm
    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        fold = "" if self.fold is None else f"-fold{self.fold}"
        return f"{self.arm.name}-seed{self.seed}{fold}"


@dataclass(frozen=True, slots=True)
class Study:
    """What is compared, and everything that the arms share.

    Attributes:
        cfg, data, weights: as in `RunRequest`.
        words: `key=value` for all arms.
        arms: the baseline is one of them.
        seeds: each arm is trained with each.
        baseline: name of the arm that the others are compared with.
        folds: number of folds of the cross-validation; 0 trains on the data set's own splits.
        group: regular expression of file names; images whose match (its first group, if it has one) is
            the same are in the same fold.
        pool: the splits whose images the folds share out.
        within: a key of the arms' words; an arm is compared only with the baseline of its own
        value: the arm
            of this value whose other words are those of `baseline`.
        published: values to print beside ours. source: of them; also of those that were left out.
    """

    cfg: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    baseline: str
    data: str | None = None
    weights: str | None = None
    words: tuple[str, ...] = ()
    folds: int = 0
    group: str | None = None
    pool: tuple[str, ...] = ("train", "val")
    within: str | None = None
    published: tuple[PublishedValue, ...] = ()
    source: str = ""

    @property
    def overlap(self) -> float:
        """Test images by training images of a fold; 0 without folds."""
        return 1 / (self.folds - 1) if self.folds else 0.0

    @property
    def pairs(self) -> list[tuple[int, int | None]]:
        """Seed and fold of each pair, in the order in which they are trained."""
        return list(itertools.product(self.seeds, range(self.folds) if self.folds else [None]))

    def list_runs(self) -> list[Run]:
        """All runs, pair by pair: a study that is stopped early has whole pairs."""
        return [Run(arm, seed, fold) for seed, fold in self.pairs for arm in self.arms]

    def find_arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def find_baseline(self, arm: Arm) -> Arm | None:
        """The arm that another is compared with; None of a baseline itself.

        With `within` it is, of the arms of the same value, the one that shares the most words with
        `baseline`.
        """
        baseline = self.find_arm(self.baseline)
        if self.within is not None:
            same = [e for e in self.arms if e.find(self.within) == arm.find(self.within)]
            shared = [len({*each.words} & {*baseline.words}) for each in same]
            baseline = same[shared.index(max(shared))]
        return None if baseline == arm else baseline


def parse_variations(texts: Sequence[str]) -> list[Arm]:
    """Makes the arms of `--vary key=a,b,c`; several make a grid, the last one varying fastest.

    Commas within brackets or braces belong to a value.

    Raises:
        UserError: not of this form, or fewer than two arms.

    Example:
        >>> [arm.name for arm in parse_variations(["bag=none,mosaic", "model.activation=mish,relu"])]
        ['none+mish', 'none+relu', 'mosaic+mish', 'mosaic+relu']
    """
    axes: list[list[str]] = []
    for text in texts:
        key, equals, values = text.partition("=")
        options = [value.strip() for value in split_outside_brackets(values)]
        if not equals or not all(key.split(".")) or not all(options):
            raise UserError(
                f"--vary {text!r}: expected key=value,value (model.activation=mish,leaky_relu)"
            )
        if len(set(options)) < len(options):
            raise UserError(f"--vary {text!r}: a value occurs twice")
        axes.append([f"{key}={value}" for value in options])
    keys = [axis[0].partition("=")[0] for axis in axes]
    if len(set(keys)) < len(keys):
        raise UserError(
            f"--vary: a key occurs twice in {', '.join(keys)}; give all its values at once"
        )
    return [
        Arm("+".join(make_file_name(word.partition("=")[2]) for word in words), tuple(words))
        for words in (itertools.product(*axes) if axes else ())
    ]


def parse_arm(text: str) -> Arm:
    """Makes the arm of `--arm 'NAME: key=value key=value'`, which changes several keys at once.

    Raises:
        UserError: not of this form.
    """
    name, colon, words = text.partition(":")
    if not colon or not name.strip() or make_file_name(name.strip()) != name.strip():
        raise UserError(
            f"--arm {text!r}: expected 'NAME: key=value key=value' (NAME: letters, digits, - + _ .)"
        )
    if not all("=" in word for word in words.split()):
        raise UserError(f"--arm {text!r}: expected key=value words after the name")
    return Arm(name.strip(), tuple(words.split()))


def split_outside_brackets(text: str) -> list[str]:
    """Splits at commas that are outside of brackets and braces."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def make_file_name(text: str) -> str:
    """A text with everything but letters, digits and `.+_-` replaced by dashes."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "arm"


def require_arms(arms: Sequence[Arm], baseline: str | None) -> str:
    """Checks the arms and returns the name of the baseline: by default the first.

    Raises:
        UserError: fewer than two arms, two with one name, or no arm of the baseline's name.
    """
    names = [arm.name for arm in arms]
    if len(names) < 2:
        raise UserError(
            "a study needs two arms or more: --vary model.activation=mish,leaky_relu, or several --arm"
        )
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates:
        raise UserError(f"two arms have the name {duplicates[0]!r}; name them by --arm 'NAME: ...'")
    if baseline is not None and baseline not in names:
        hint = nearest(baseline, names)
        raise UserError(f"--baseline {baseline}: no such arm{hint} (arms: {', '.join(names)})")
    return baseline or names[0]


def take_shard(runs: Sequence[Run], text: str | None, num_arms: int) -> list[Run]:
    """The runs of one machine: with `--shard i/n`, every n-th pair of all arms, beginning with the i-th.

    A pair stays on one machine, so that a difference between machines is not one between arms. Where
    there are fewer pairs than machines, single runs are shared out.

    Raises:
        UserError: not i/n with 1 <= i <= n.
    """
    if text is None:
        return list(runs)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text}: expected i/n, such as 1/3, 2/3 and 3/3 on three machines")
    shard, count = int(match[1]) - 1, int(match[2])
    whole = len(runs) // num_arms >= count
    return [
        run
        for number, run in enumerate(runs)
        if (number // num_arms if whole else number) % count == shard
    ]


def make_request(study: Study, folder: Path, run: Run) -> RunRequest:
    """The training of a run, in its folder of the study."""
    return RunRequest(
        cfg=study.cfg,
        folder=find_run_folder(folder, run).path,
        overrides=(*study.words, *run.arm.words, f"train.seed={run.seed}"),
        data=study.data if run.fold is None else str(find_fold(folder, run.seed, run.fold)),
        weights=None if study.weights is None else Path(study.weights),
    )


def find_run_folder(folder: Path, run: Run) -> RunFolder:
    """The folder of a run in the folder of its study."""
    return RunFolder(folder / "runs" / run.name)


def find_fold(folder: Path, seed: int, fold: int) -> Path:
    """The data YAML of a fold; each seed has a partition of its own."""
    return folder / "folds" / f"seed{seed}-fold{fold}.yaml"


def read_study_pool(study: Study, dataset: str) -> Pool | None:
    """The images that the folds of a study share out; None without folds.

    Args:
        study: whose pool it is.
        dataset: of all arms.

    Raises:
        UserError: the data set cannot be read, or cannot be shared out in this way.
    """
    if not study.folds:
        return None
    pool = read_pool(dataset, study.pool, study.group)
    pool.require_groups(study.folds)
    return pool


def write_study_folds(study: Study, folder: Path, pool: Pool | None) -> None:
    """Writes the data YAMLs of a cross-validation that are missing.

    Raises:
        UserError: a file cannot be written.
    """
    if pool is None:
        return
    for seed in study.seeds:
        paths = [find_fold(folder, seed, fold) for fold in range(study.folds)]
        write_folds(pool, study.folds, seed, paths)


def open_study(folder: Path, study: Study) -> None:
    """Writes study.json, or checks that the folder's is of the same study; arms and seeds may be added.

    Raises:
        UserError: the folder holds another study, or cannot be written.
    """
    path = folder / DESCRIPTION
    if path.exists():
        require_same_study(path, load_study(folder), study)
    replace_text(path, f"{json.dumps(dataclasses.asdict(study), indent=1)}\n")


def require_same_study(path: Path, before: Study, now: Study) -> None:
    """Checks that runs of both studies can be compared.

    Raises:
        UserError: names the settings that differ.
    """
    shared = ("cfg", "data", "weights", "words", "folds", "group", "pool")
    changed = [
        f"{name}: {getattr(before, name)!r}, now {getattr(now, name)!r}"
        for name in shared
        if getattr(before, name) != getattr(now, name)
    ]
    old = {arm.name: arm.words for arm in before.arms}
    changed += [
        f"arm {arm.name}: {' '.join(old[arm.name])}, now {' '.join(arm.words)}"
        for arm in now.arms
        if old.get(arm.name, arm.words) != arm.words
    ]
    if changed:
        raise UserError(
            f"{path}: this folder holds another study ({'; '.join(changed)}); give the same settings, or "
            f"another --out"
        )


def load_study(folder: Path) -> Study:
    """Reads study.json.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / DESCRIPTION
    content = read_regular_file(path)
    try:
        values: dict[str, Any] = json.loads(content)
        arms = tuple(Arm(arm["name"], tuple(arm["words"])) for arm in values.pop("arms"))
        for name in ("seeds", "words", "pool"):
            if name in values:  # folders of older versions have no pool
                values[name] = tuple(values[name])
        published = tuple(
            # of older versions: lists of arm, metric and value
            PublishedValue(**each) if isinstance(each, dict) else PublishedValue(*each)
            for each in values.pop("published", ())
        )
        return Study(arms=arms, published=published, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is damaged ({error}); delete it and start the study again"
        ) from None


def iterate_configs(study: Study, folder: Path) -> Iterator[tuple[Arm, Any]]:
    """Each arm with its validated config, whose network can be built.

    Raises:
        UserError: the mistakes of an arm's settings.
    """
    for arm in study.arms:
        run = Run(arm, study.seeds[0])
        try:
            config = make_request(study, folder, run).load_config()
            with torch.device("meta"):  # names of activations and so on, without any numbers
                build_network(config.model, num_classes=1)
            yield arm, config
        except UserError as error:
            raise UserError(f"arm {arm.name}: {error}") from None
