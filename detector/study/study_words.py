"""A study as the arguments of `ablate`: the command that reports show, and that schedulers run."""

from collections.abc import Sequence
from pathlib import Path

from detector.study.plan import Study, parse_variations


def list_study_words(study: Study, folder: Path) -> list[str]:
    """The arguments that describe a study: arms that several --vary made are --arm."""
    words = ["--cfg", study.cfg]
    for name, value in (("--data", study.data), ("--weights", study.weights)):
        words += [name, value] if value is not None else []
    words += format_arms(study)
    count = len(study.seeds)
    whole = study.seeds == tuple(range(count))
    listed = ",".join(map(str, study.seeds)) + ("," if count == 1 else "")
    words += ["--seeds", str(count) if whole else listed]
    words += ["--folds", str(study.folds), "--pool", ",".join(study.pool)] if study.folds else []
    words += ["--group-by", study.group] if study.group is not None else []
    words += ["--baseline", study.baseline] if study.baseline != study.arms[0].name else []
    words += ["--within", study.within] if study.within is not None else []
    return [*words, "--out", str(folder), *study.words]


def format_arms(study: Study) -> Sequence[str]:
    """The options that make the arms: one --vary if they differ in one key, else an --arm each."""
    pairs = [word.partition("=") for arm in study.arms for word in arm.words]
    keys = {key for key, _, _ in pairs}
    text = f"{min(keys, default='')}={','.join(value for _, _, value in pairs)}"
    if len(keys) == 1 and parse_variations([text]) == list(study.arms):
        return ["--vary", text]
    return [
        word for arm in study.arms for word in ("--arm", " ".join([f"{arm.name}:", *arm.words]))
    ]
