"""Parses darknet's `.cfg` files into sections with options and line numbers for `darknet_net`."""

import math
from dataclasses import dataclass, field
from typing import NoReturn

from detector.errors import UserError

LARGEST = 1_000_000  # of an option
# Keys that define the network.
SUPPORTED = {
    "convolutional": "batch_normalize filters size stride pad padding groups activation",
    "shortcut": "from activation",
    "route": "layers groups group_id",
    "maxpool": "size stride padding",
    "upsample": "stride",
    "dropout": "probability",
    "yolo": "mask anchors classes num scale_x_y new_coords",
}
# Keys that only affect training in darknet: accepted and ignored.
IGNORED = {
    "convolutional": "stopbackward learning_rate burnin_update train_only_bn",
    "yolo": (
        "jitter resize random ignore_thresh truth_thresh iou_thresh iou_loss iou_normalizer "
        "cls_normalizer obj_normalizer delta_normalizer max_delta nms_kind beta_nms focal_loss max "
        "objectness_smooth label_smooth_eps counters_per_class map absolute show_details "
        "iou_thresh_kind"
    ),
}


@dataclass(frozen=True, slots=True)
class Section:
    """One `[kind]` section of a file: its options as text, and the line where it starts."""

    source: str
    kind: str
    line: int
    options: dict[str, str] = field(default_factory=dict[str, str])

    def fail(self, message: str) -> NoReturn:
        """Raises a UserError that names file, line and section."""
        raise UserError(f"{self.source}:{self.line}: [{self.kind}]: {message}")

    def numbers(self, key: str, default: str | None = None) -> list[float]:
        """Parses an option as numbers, separated by commas."""
        text = self.options.get(key, default)
        if text is None:
            self.fail(f"{key}= is missing")
        try:
            values = [float(word) for word in text.split(",") if word.strip()]
        except ValueError:
            values = [math.nan]
        if not all(abs(value) <= LARGEST for value in values):  # nan neither
            self.fail(f"{key}={text}: expected numbers of at most {LARGEST}, separated by commas")
        return values

    def number(self, key: str, default: str | None = None) -> float:
        """Parses an option as one number."""
        values = self.numbers(key, default)
        if len(values) != 1:
            self.fail(f"{key}={self.options.get(key)}: expected one number")
        return values[0]

    def wholes(self, key: str, default: str | None = None) -> list[int]:
        """Parses an option as integers, separated by commas."""
        values = self.numbers(key, default)
        if any(value != int(value) for value in values):
            self.fail(f"{key}={self.options.get(key)}: expected integers, separated by commas")
        return list(map(int, values))

    def whole(self, key: str, default: str | None = None, *, least: int = 0) -> int:
        """Parses an option as an integer of at least `least`."""
        value = self.number(key, default)
        if value < least or value != int(value):
            self.fail(
                f"{key}={self.options.get(key)}: expected an integer between {least} and {LARGEST}"
            )
        return int(value)


def parse_cfg(text: str, source: str) -> list[Section]:
    """Parses a file into its sections, [net] first.

    Args:
        text: of the file.
        source: its name, for messages.

    Raises:
        UserError: a line that is neither section, option nor comment; an unsupported section or option;
            no [net] at the start.
    """
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].split(";")[0].strip()
        if not line:
            continue
        where = f"{source}:{number}"
        if line.startswith("["):
            kind = line.strip("[]").strip().lower()
            sections.append(Section(source, "net" if kind == "network" else kind, number))
            continue
        key, equals, value = (word.strip() for word in line.partition("="))
        if not equals or not sections:
            raise UserError(f"{where}: expected a [section] or key=value, not {line!r}")
        if key in sections[-1].options:
            raise UserError(f"{where}: duplicate option {key} in [{sections[-1].kind}]")
        sections[-1].options[key] = value
    if not sections or sections[0].kind != "net":
        raise UserError(f"{source}: not a darknet cfg: expected [net] as the first section")
    for section in sections[1:]:
        _refuse_unknown(section)
    return sections


def _refuse_unknown(section: Section) -> None:
    if section.kind not in SUPPORTED:
        section.fail(f"section not supported (known: {', '.join(SUPPORTED)})")
    known = f"{SUPPORTED[section.kind]} {IGNORED.get(section.kind, '')}".split()
    for key in section.options:
        if key not in known:
            section.fail(f"option {key} is not supported (known: {', '.join(known)})")


def count_cfg_classes(sections: list[Section]) -> int:
    """The number of classes of a detector, from its first [yolo] section.

    Raises:
        UserError: there is no [yolo] section.
    """
    outputs = [section for section in sections if section.kind == "yolo"]
    if not outputs:
        sections[0].fail("no [yolo] section follows, so the network has no detection output")
    return outputs[0].whole("classes", "20", least=1)


def replace_cfg_classes(sections: list[Section], classes: int) -> str:
    """The cfg of the same network for another number of classes, without comments.

    Raises:
        UserError: there is no [yolo] section, or its `filters=` does not fit its classes.
    """
    old = count_cfg_classes(sections)
    texts = []
    for section, after in zip(sections, [*sections[1:], None], strict=True):
        options = dict(section.options)
        if section.kind == "yolo":
            options["classes"] = str(classes)
        elif after is not None and after.kind == "yolo":
            anchors, rest = divmod(section.whole("filters", "1", least=1), 5 + old)
            if rest:
                section.fail(f"filters={section.options.get('filters')} does not fit classes={old}")
            options["filters"] = str(anchors * (5 + classes))
        lines = [f"{key}={value}" for key, value in options.items()]
        texts.append("\n".join([f"[{section.kind}]", *lines]) + "\n")
    return "\n".join(texts)
