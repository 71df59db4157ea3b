"""Where a detector loses its AP: by class, by size, by kind of error; how far its scores can be believed.

Every AP in here comes from the evaluator, also those "without errors of this kind": they are COCO's AP of
the results with that kind mended.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from detector.evaluation.backends import AreaRange, Backend, CocoResult
from detector.evaluation.ground_truth import GroundTruth, Results
from detector.evaluation.matching import Matches, match, pair_iou
from detector.evaluation.thresholds import OperatingPoint, ScoreCurve, ThresholdGoal

# Bolya et al., "TIDE", 2020, section 2.2: found is IoU >= 0.5, nothing there is IoU < 0.1
FOUND, NOTHING = 0.5, 0.1
KINDS = ("class", "location", "both", "duplicate", "background", "missed")
SIDES = (0, 16, 32, 64, 96, 160, 256, 512)  # px, of the root of the area
AT_HALF = np.array([0.5])
BEST_F1 = ThresholdGoal()
EVERY_SIZE: tuple[AreaRange, ...] = (("all", 0, 1e10),)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Boxes and truths that overlap, of one image each but of any class.

    Attributes:
        found, truth: int64 [n], rows. iou: float64 [n], > 0; with a crowd, the share of the box.
    """

    found: np.ndarray
    truth: np.ndarray
    iou: np.ndarray

    @classmethod
    def of(cls, truth: GroundTruth, results: Results, rows: np.ndarray) -> "Pairs":
        """Of some rows of the results."""
        by_image = np.argsort(truth.image, kind="stable")
        begin = np.searchsorted(truth.image[by_image], results.image[rows])
        count = np.searchsorted(truth.image[by_image], results.image[rows], "right") - begin
        found = np.repeat(rows, count)
        step = np.arange(len(found)) - np.repeat(np.cumsum(count) - count, count)
        owner = by_image[np.repeat(begin, count) + step]
        boxes, truths = results.boxes_xywh[found], truth.boxes_xywh[owner][:, None]
        iou = pair_iou(boxes, truths, truth.crowd[owner][:, None])[:, 0]
        over = iou > 0
        return cls(found[over], owner[over], iou[over])

    def best(self, rows: int, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """IoU and truth of the best of the `kept` pairs of each row, [rows] each; 0 and -1 for none."""
        iou, truth = np.zeros(rows), np.full(rows, -1)
        at = kept.nonzero()[0]
        at = at[np.argsort(self.iou[at], kind="stable")]
        iou[self.found[at]], truth[self.found[at]] = self.iou[at], self.truth[at]
        return iou, truth


@dataclass(frozen=True, slots=True, eq=False)
class ClassResult:
    """One class: its truths, AP, AP50, AP75, AR100; None where it has no truths.

    Attributes:
        curve: its thresholds.
        point: the one chosen for it; None where its goal is never reached.
    """

    name: str
    truths: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    curve: ScoreCurve
    point: OperatingPoint | None


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What the report shows.

    Attributes:
        classes: a line each.
        precision: float64 [101, classes], at recalls 0:0.01:1 and IoU 0.5; -1 without truths.
        goal: what thresholds are chosen for.
        curve: all classes together. point: the one chosen; None where the goal is never reached.
        threshold: the score of that point, else of the greatest F1; confusion, images and labels are
            judged from there on.
        confusion: int64 [classes + 1, classes + 1], true by found; the last is background.
        sizes: (range of sides in px, truths, AP or None).
        errors: kind -> (how many, AP50 lost to it).
        ap50: COCO's.
        calibration: (mean score, share that is right, boxes) of ten bins of score.
        worst: the images with most errors, the worst first.
        suspects: probable label errors, the most probable first.
    """

    classes: list[ClassResult]
    precision: np.ndarray
    goal: ThresholdGoal
    curve: ScoreCurve
    point: OperatingPoint | None
    threshold: float
    confusion: np.ndarray
    sizes: list[tuple[str, int, float | None]]
    errors: dict[str, tuple[int, float]]
    ap50: float
    calibration: list[tuple[float, float, int]]
    worst: list["BadImage"]
    suspects: list["LabelSuspect"]

    def thresholds(self) -> dict[str, Any]:
        """For JSON: the goal, and the points of all together and of each class; null: never reached."""
        return {
            "goal": str(self.goal),
            "iou": FOUND,
            "all": asdict(self.point) if self.point else None,
            "classes": [
                {
                    "name": one.name,
                    "truths": one.truths,
                    "point": asdict(one.point) if one.point else None,
                }
                for one in self.classes
            ],
        }


@dataclass(frozen=True, slots=True, eq=False)
class BadImage:
    """An image with errors at the threshold.

    Attributes:
        image: place in the truth's `image_ids`.
        missed: int64 [n], rows of the truth. found: int64 [k], those that were found.
        false: int64 [m], rows of the results.
    """

    image: int
    missed: np.ndarray
    found: np.ndarray
    false: np.ndarray


@dataclass(frozen=True, slots=True)
class LabelSuspect:
    """A place where the label may be wrong.

    Attributes:
        kind: "no label" (found with confidence, no truth there), "other class" (found with confidence as
            another class than its label) or "nothing there" (a label that nothing was found at).
        image: place in the truth's `image_ids`.
        box_xywh: pixels.
        found, labelled: class names; None where there is none.
        score: of the find; of a label nothing was found at, 1 - the best overlap of any find.
    """

    kind: str
    image: int
    box_xywh: tuple[float, float, float, float]
    found: str | None
    labelled: str | None
    score: float


def analyse(
    truth: GroundTruth, results: Results, backend: Backend, goal: ThresholdGoal = BEST_F1
) -> Analysis:
    """Everything the report needs.

    Args:
        truth, results: checked.
        backend: who computes each AP.
        goal: what thresholds are chosen for.
    """
    judged = backend.evaluate(truth, results, None)
    matches = match(truth, results, areas=EVERY_SIZE, thresholds=AT_HALF)
    curve, curves = score_curves(truth, results, matches)
    point = curve.point(goal)
    chosen = point or curve.point(BEST_F1)
    threshold = chosen.score if chosen else 0.5  # of no boxes: any
    kind, target, missed = kinds_of_errors(truth, results, matches)
    sure = results.rows(results.score >= threshold)
    return Analysis(
        classes=class_lines(truth, judged, curves, goal),
        precision=judged.precision[0, :, :, 0, 2],
        goal=goal,
        curve=curve,
        point=point,
        threshold=threshold,
        confusion=confusion(truth, sure),
        sizes=by_size(truth, results, backend),
        errors=costs(truth, results, backend, kind, target, missed),
        ap50=float(judged.stats[1]),
        calibration=calibration(results, matches),
        worst=worst_images(truth, results, threshold),
        suspects=suspects(truth, results, kind, target, threshold),
    )


def class_lines(
    truth: GroundTruth, judged: CocoResult, curves: Sequence[ScoreCurve], goal: ThresholdGoal
) -> list[ClassResult]:
    """COCO's AP of each class, and its point."""
    counts = np.bincount(truth.label[~truth.crowd], minlength=len(truth.names)).tolist()

    def mean(values: np.ndarray) -> float | None:
        there = values[values > -1]
        return float(there.mean()) if there.size else None

    p, r = judged.precision[..., 0, 2], judged.recall[..., 0, 2]
    return [
        ClassResult(
            name=name,
            truths=count,
            ap=mean(p[:, :, k]),
            ap50=mean(p[0, :, k]),
            ap75=mean(p[5, :, k]),
            ar=mean(r[:, k]),
            curve=curves[k],
            point=curves[k].point(goal) if count else None,
        )
        for k, (name, count) in enumerate(zip(truth.names, counts, strict=True))
    ]


def score_curves(
    truth: GroundTruth, results: Results, matches: Matches
) -> tuple[ScoreCurve, list[ScoreCurve]]:
    """Of all classes together and of each; crowds do not count."""
    counts = ~matches.ignored[0, 0]
    rows = matches.rows[counts]
    score, label = results.score[rows], results.label[rows]
    right = matches.truth[0, 0, counts] >= 0
    wanted = np.bincount(truth.label[matches.real[0]], minlength=len(truth.names))
    ends = np.searchsorted(label, np.arange(len(wanted) + 1))  # judged rows stand class by class
    mine = [slice(*ends[k : k + 2]) for k in range(len(wanted))]
    each = [ScoreCurve.of(score[s], right[s], int(n)) for s, n in zip(mine, wanted, strict=True)]
    return ScoreCurve.of(score, right, int(wanted.sum())), each


def kinds_of_errors(
    truth: GroundTruth, results: Results, matches: Matches
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kind of each row's error and the truth it is about; the truths that are missed.

    Returns:
        kind [d] of indices into `KINDS`, -1 for right, ignored or unjudged boxes; target int [d], -1 for
        none; missed bool [m], truths that neither a right box nor a mended one would find.
    """
    judged, matched = matches.rows, matches.truth[0, 0]
    wrong = judged[(matched < 0) & ~matches.ignored[0, 0]]
    pairs = Pairs.of(truth, results, wrong)
    real = ~truth.crowd[pairs.truth]
    same = real & (results.label[pairs.found] == truth.label[pairs.truth])
    count = len(results)
    own, own_truth = pairs.best(count, same)
    other, other_truth = pairs.best(count, real & ~same)
    kind, target = np.full(count, -1), np.full(count, -1)
    near = own[wrong]
    far = other[wrong]
    chosen = np.select(
        [near >= FOUND, far >= FOUND, near >= NOTHING, far >= NOTHING],
        [
            KINDS.index("duplicate"),
            KINDS.index("class"),
            KINDS.index("location"),
            KINDS.index("both"),
        ],
        KINDS.index("background"),
    )
    kind[wrong] = chosen
    about_own = np.isin(chosen, (KINDS.index("duplicate"), KINDS.index("location")))
    target[wrong] = np.where(about_own, own_truth[wrong], other_truth[wrong])
    target[wrong[chosen == KINDS.index("background")]] = -1
    missed = matches.real[0].copy()
    missed[matched[matched >= 0]] = False
    mendable = np.isin(kind, (KINDS.index("class"), KINDS.index("location")))
    missed[target[mendable]] = False
    return kind, target, missed


def costs(
    truth: GroundTruth,
    results: Results,
    backend: Backend,
    kind: np.ndarray,
    target: np.ndarray,
    missed: np.ndarray,
) -> dict[str, tuple[int, float]]:
    """How many errors of each kind, and how much AP50 rises where that kind is mended.

    A box of the wrong class gets the right one, one at the wrong place the truth's place; others are
    taken away, and truths that are missed count no longer.
    """

    def ap50(truth: GroundTruth, results: Results) -> float:
        value = float(backend.evaluate(truth, results, None).stats[1])
        return value if value >= 0 else 1.0  # nothing is to be found any more: nothing is lost

    now = ap50(truth, results)
    lost = {}
    for number, name in enumerate(KINDS):
        these = (kind == number).nonzero()[0]
        mended_truth, mended = truth, results
        if name == "missed":
            these = missed.nonzero()[0]
            columns = ("image", "label", "boxes_xywh", "area", "crowd")
            kept = {column: getattr(truth, column)[~missed] for column in columns}
            mended_truth = replace(truth, **kept)
        elif name == "class":
            label = results.label.copy()
            label[these] = truth.label[target[these]]
            mended = replace(results, label=label)
        elif name == "location":
            boxes = results.boxes_xywh.copy()
            boxes[these] = truth.boxes_xywh[target[these]]
            mended = replace(results, boxes_xywh=boxes)
        else:
            mended = results.rows(kind != number)
        lost[name] = (len(these), ap50(mended_truth, mended) - now if len(these) else 0.0)
    return lost


def confusion(truth: GroundTruth, sure: Results) -> np.ndarray:
    """[classes + 1, classes + 1], true by found, of boxes matched whatever their class.

    All boxes count, not COCO's best 100 of an image and class alone. The last row and column are
    background.
    """
    blind_truth = replace(truth, names=("object",), label=np.zeros_like(truth.label))
    blind = replace(sure, label=np.zeros_like(sure.label))
    matches = match(blind_truth, blind, areas=EVERY_SIZE, thresholds=AT_HALF, limit=len(sure))
    background = len(truth.names)
    table = np.zeros((background + 1, background + 1), np.int64)
    hit, counts = matches.truth[0, 0], ~matches.ignored[0, 0]
    true = np.where(hit >= 0, np.append(truth.label, background)[hit], background)
    np.add.at(table, (true[counts], sure.label[matches.rows[counts]]), 1)
    unfound = matches.real[0].copy()
    unfound[hit[hit >= 0]] = False
    np.add.at(table, (truth.label[unfound], np.full(int(unfound.sum()), background)), 1)
    return table


def by_size(
    truth: GroundTruth, results: Results, backend: Backend
) -> list[tuple[str, int, float | None]]:
    """COCO's AP of finer ranges of size."""
    ends = [*SIDES[1:], 1e5]
    areas = [(f"{a}-{b:g}", float(a) ** 2, float(b) ** 2) for a, b in zip(SIDES, ends, strict=True)]
    areas[-1] = (f"> {SIDES[-1]}", *areas[-1][1:])
    precision = backend.evaluate(truth, results, areas).precision
    lines = []
    for number, (name, low, high) in enumerate(areas):
        there = precision[:, :, :, number, 2]
        there = there[there > -1]
        count = int((~truth.crowd & (truth.area >= low) & (truth.area <= high)).sum())
        lines.append((name, count, float(there.mean()) if there.size else None))
    return lines


def calibration(results: Results, matches: Matches) -> list[tuple[float, float, int]]:
    """Of ten bins of score: the mean score, the share of right boxes at IoU 0.5, how many."""
    counts = ~matches.ignored[0, 0]
    score = results.score[matches.rows[counts]]
    right = matches.truth[0, 0, counts] >= 0
    bins = np.minimum((score * 10).astype(int), 9)
    lines = []
    for number in range(10):
        mine = bins == number
        if mine.any():
            lines.append((float(score[mine].mean()), float(right[mine].mean()), int(mine.sum())))
    return lines


def worst_images(
    truth: GroundTruth, results: Results, threshold: float, limit: int = 12
) -> list[BadImage]:
    """The images with most truths missed and false boxes of the threshold's score or more."""
    rows = (results.score >= threshold).nonzero()[0]
    sure = results.rows(rows)
    matches = match(truth, sure, areas=EVERY_SIZE, thresholds=AT_HALF, limit=len(sure))
    hit = matches.truth[0, 0]
    false = rows[matches.rows[(hit < 0) & ~matches.ignored[0, 0]]]
    unfound = matches.real[0].copy()
    unfound[hit[hit >= 0]] = False
    missed, found = unfound.nonzero()[0], (matches.real[0] & ~unfound).nonzero()[0]
    count = len(truth.image_ids)
    errors = np.bincount(truth.image[missed], minlength=count)
    errors += np.bincount(results.image[false], minlength=count)
    order = np.argsort(-errors, kind="stable")[:limit]
    return [
        BadImage(
            int(image),
            missed[truth.image[missed] == image],
            found[truth.image[found] == image],
            false[results.image[false] == image],
        )
        for image in order
        if errors[image]
    ]


def suspects(
    truth: GroundTruth, results: Results, kind: np.ndarray, target: np.ndarray, threshold: float
) -> list[LabelSuspect]:
    """Confident finds without a truth or of another class, and truths that nothing was found at.

    The kinds take turns, each with its most probable first, so that a reviewer sees of all.
    """
    lists = []
    for name, number in (
        ("no label", KINDS.index("background")),
        ("other class", KINDS.index("class")),
    ):
        rows = ((kind == number) & (results.score >= threshold)).nonzero()[0]
        rows = rows[np.argsort(-results.score[rows], kind="stable")]
        lists.append(
            [
                LabelSuspect(
                    name,
                    int(results.image[row]),
                    _four(results.boxes_xywh[row]),
                    truth.names[results.label[row]],
                    truth.names[truth.label[target[row]]] if target[row] >= 0 else None,
                    float(results.score[row]),
                )
                for row in rows
            ]
        )
    pairs = Pairs.of(truth, results, np.arange(len(results)))
    overlap = np.zeros(len(truth.image))
    np.maximum.at(overlap, pairs.truth, pairs.iou)
    rows = ((overlap < FOUND) & ~truth.crowd).nonzero()[0]
    rows = rows[np.argsort(overlap[rows], kind="stable")]
    lists.append(
        [
            LabelSuspect(
                "nothing there",
                int(truth.image[row]),
                _four(truth.boxes_xywh[row]),
                None,
                truth.names[truth.label[row]],
                float(1 - overlap[row]),
            )
            for row in rows
        ]
    )
    longest = max(map(len, lists))
    return [one[i] for i in range(longest) for one in lists if i < len(one)]


def _four(box: np.ndarray) -> tuple[float, float, float, float]:
    x, y, w, h = box.tolist()
    return x, y, w, h
