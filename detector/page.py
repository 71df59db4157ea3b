"""The report of an evaluation: one HTML file without anything from outside, its pictures, and JSON.

The charts are SVG within the page; pictures are PNG files of the folder and within the page as well.
"""

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from detector.data import UnreadableImage
from detector.draw import draw_labelled, save_image
from detector.evaluation import METRICS
from detector.evaluation.analysis import Analysis, Curve, Suspect
from detector.validation import Outcome

INK, TRUE, FOUND = "#2f6f8f", (40, 200, 90), (255, 120, 0)
SIDE = 480  # px, of pictures
SUSPECTS = 24  # shown; the JSON has all
WANTED = (0.5, 0.8, 0.9, 0.95)  # precisions and recalls whose scores are told
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #66727f; --line: #dde3e8; --back: #fff;
  --card: #f6f8fa; --accent: #2f6f8f }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9ee; --soft: #9aa7b3; --line: #34404b;
  --back: #12181d; --card: #1b232a; --accent: #74b7d8 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem;
  background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p { margin: .3rem 0 .8rem; max-width: 46rem; color: var(--soft) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.6rem, 1fr)); gap: .6rem;
  margin: 1rem 0 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .5rem .7rem }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums }
.card span { color: var(--soft); font-size: .8rem }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1.5rem }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr));
  gap: 1rem }
figure { margin: 0 } figcaption { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
img { width: 100%; border-radius: .4rem; display: block }
svg { width: 100%; height: auto; display: block }
svg text { fill: var(--soft); font-size: 12px } .wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { color: var(--soft); font-weight: 600 }
th button { all: unset; cursor: pointer } th button:focus-visible { outline: 2px solid var(--accent) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.heat { width: auto } .heat td { text-align: center; padding: .15rem .4rem }
.heat th { font-weight: 400; font-size: .8rem }
.true { color: rgb(30, 160, 70) } .found { color: rgb(220, 100, 0) }
"""
_SORT = """
document.querySelectorAll("table.sortable th").forEach((head, column) => {
  head.firstChild.onclick = () => {
    const table = head.closest("table"), body = table.tBodies[0];
    const down = head.getAttribute("aria-sort") !== "descending";
    const key = row => row.cells[column].dataset.value;
    const number = [...body.rows].every(row => key(row) === "" || !isNaN(key(row)));
    const rows = [...body.rows].sort((a, b) => number
      ? (key(a) === "" ? -9 : +key(a)) - (key(b) === "" ? -9 : +key(b)) : key(a).localeCompare(key(b)));
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...(down ? rows.reverse() : rows));
  };
});
"""


def write_report(folder: Path, outcome: Outcome, analysis: Analysis) -> Path:
    """Writes report.html, label_errors.json and the pictures.

    Args:
        folder: made where it is missing.
        outcome: of one evaluation; without images (a results file) there are no pictures.
        analysis: of the same.

    Returns:
        The path of report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, ids = outcome.truth.names, outcome.truth.image_ids
    suspects = [
        {**asdict(one), "image_id": int(ids[one.image]), "file": _file(outcome, one.image)}
        for one in analysis.suspects
    ]
    (folder / "label_errors.json").write_text(json.dumps(suspects, indent=1))
    row = outcome.row
    about = ", ".join(
        f"{name.replace('_', ' ')} {row.about[name]}"
        for name in ("images", "size", "protocol", "precision", "evaluator")
        if name in row.about
    )
    parts = [
        f"<h1>{_text(row.source)}</h1>",
        f"<p>{_text(row.detector)}, {_text(row.activation)}; {_text(about)}</p>",
        _cards(outcome),
        '<div class="pair">',
        _part(
            "Where AP50 is lost",
            "How much COCO's AP50 rises, in points, where all errors of a kind are mended; kinds "
            "overlap, so they do not add up. The kinds are those of TIDE (Bolya et al., 2020), whose "
            "figures differ where a mended box meets an object that another box has found.",
            bars(
                [
                    (f"{k} ({n})", 100 * v, f"{100 * v:+.1f}")
                    for k, (n, v) in analysis.errors.items()
                ]
            ),
        ),
        _part(
            "AP by size of the object",
            "Side of a square of the same area, in pixels of the original images.",
            bars(
                [
                    (f"{name} ({n})", 100 * (v or 0), "none" if v is None else f"{100 * v:.1f}")
                    for name, n, v in analysis.sizes
                ],
                100,
            ),
        ),
        _part(
            "Precision and recall",
            "At IoU 0.5: every class thin, their mean thick.",
            precision_recall(analysis.precision),
        ),
        _part(
            "Choosing a score",
            f"All classes together, at IoU 0.5. F1 is greatest, {_f1(analysis.curve)}, at score "
            f"{analysis.threshold:.3f}, the score below which boxes are left out of what follows.",
            scores_chart(analysis.curve) + operating_points(analysis.curve),
        ),
        _part(
            "Can the scores be believed?",
            "Share of boxes that are right against their score; on the line, a score is a probability. "
            "Larger dots are more boxes.",
            calibration_chart(analysis.calibration),
        ),
        _part("Speed", "Milliseconds an image, over batches.", speed(outcome)),
        "</div>",
        _part("Classes", "COCO's AP of each; click a column to sort by it.", class_table(analysis)),
        _part(
            "What is taken for what",
            f"Boxes of score {analysis.threshold:.3f} or more, matched at IoU 0.5 whatever their class. "
            "A row is a true class, a column a found one; the last ones are background.",
            confusion_table(analysis.confusion, names),
        ),
        _part(
            "The worst images",
            'Truths in <b class="true">green</b>, found boxes in <b class="found">orange</b>.',
            worst_pictures(folder, outcome, analysis),
        ),
        _part(
            "Labels to look at",
            "Where the label rather than the model may be wrong, the most probable first; all "
            f"{len(suspects)} are in label_errors.json.",
            suspect_pictures(folder, outcome, analysis.suspects),
        ),
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(row.source)}</title><style>{_STYLE}</style>"
        f"<body>{''.join(parts)}<script>{_SORT}</script></body></html>"
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _text(value: object) -> str:
    return html.escape(str(value))


def _part(title: str, about: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{about}</p>{content}</section>"


def _percent(value: float | None) -> str:
    return "none" if value is None or value < 0 else f"{100 * value:.1f}"


def _f1(curve: Curve) -> str:
    return f"{curve.f1[curve.best()]:.3f}" if len(curve.score) else "none"


def _cards(outcome: Outcome) -> str:
    cells = []
    bounds = outcome.row.bounds or [None] * len(METRICS)
    for (name, value), bound in zip(outcome.row.metrics.items(), bounds, strict=True):
        between = "" if bound is None else f"<br>{100 * bound[0]:.1f} to {100 * bound[1]:.1f}"
        cells.append(
            f'<div class="card"><span>{name}</span><b>{_percent(value)}</b><span>{between}</span></div>'
        )
    return f'<div class="cards">{"".join(cells)}</div>'


def bars(lines: Sequence[tuple[str, float, str]], most: float | None = None) -> str:
    """Horizontal bars of (name, value, what stands at the end)."""
    top = most or max([value for _, value, _ in lines] + [1e-9])
    height = 26 * len(lines)
    parts = []
    for number, (name, value, word) in enumerate(lines):
        y, width = 26 * number, max(250 * value / top, 0)
        parts.append(
            f'<text x="142" y="{y + 17}" text-anchor="end">{_text(name)}</text>'
            f'<rect x="150" y="{y + 4}" width="{width:.1f}" height="18" rx="3" fill="{INK}"/>'
            f'<text x="{156 + width:.1f}" y="{y + 17}">{_text(word)}</text>'
        )
    return f'<svg viewBox="0 0 460 {height}" role="img">{"".join(parts)}</svg>'


def chart(inside: str, across: str, up: str) -> str:
    """Axes from 0 to 1 around SVG that `_at` places."""
    ticks = ""
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = _at(value, value)
        ticks += (
            f'<line x1="{x}" x2="{x}" y1="10" y2="250" stroke="var(--line)"/>'
            f'<line x1="45" x2="445" y1="{y}" y2="{y}" stroke="var(--line)"/>'
            f'<text x="{x}" y="266" text-anchor="middle">{value:g}</text>'
            f'<text x="38" y="{y + 4}" text-anchor="end">{value:g}</text>'
        )
    names = (
        f'<text x="245" y="284" text-anchor="middle">{across}</text>'
        f'<text x="12" y="130" text-anchor="middle" transform="rotate(-90 12 130)">{up}</text>'
    )
    return f'<svg viewBox="0 0 460 290" role="img">{ticks}{inside}{names}</svg>'


def _at(x: float, y: float) -> tuple[float, float]:
    return round(45 + 400 * x, 1), round(250 - 240 * y, 1)


def line(x: np.ndarray, y: np.ndarray, style: str) -> str:
    """A line through points in 0..1, of at most some hundred."""
    step = max(len(x) // 400, 1)
    points = " ".join(
        "{},{}".format(*_at(a, b))
        for a, b in zip(x[::step].tolist(), y[::step].tolist(), strict=True)
    )
    return f'<polyline points="{points}" fill="none" {style}/>'


def precision_recall(precision: np.ndarray) -> str:
    """[101, classes]: a thin line a class, a thick one for the mean."""
    recalls = np.linspace(0, 1, 101)
    there = precision[:, (precision > -1).all(0)]
    thin = f'stroke="{INK}" stroke-opacity="{max(0.12, 0.5 / max(there.shape[1], 1) ** 0.4):.2f}"'
    lines = "".join(line(recalls, column, thin) for column in there.T)
    if there.shape[1]:
        lines += line(recalls, there.mean(1), f'stroke="{INK}" stroke-width="3"')
    return chart(lines, "recall", "precision")


def scores_chart(curve: Curve) -> str:
    """Precision, recall and F1 against the score."""
    if not len(curve.score):
        return ""
    drawn, key = "", ""
    for name, values, colour in (
        ("precision", curve.precision, INK),
        ("recall", curve.recall, "#c2671b"),
        ("F1", curve.f1, "#5b9a4b"),
    ):
        drawn += line(curve.score, values, f'stroke="{colour}" stroke-width="2"')
        key += f'<b style="color:{colour}">{name}</b> '
    at = _at(float(curve.score[curve.best()]), 0)[0]
    mark = f'<line x1="{at}" x2="{at}" y1="10" y2="250" stroke="#5b9a4b" stroke-dasharray="4 4"/>'
    return f"<p>{key}</p>" + chart(drawn + mark, "score", "")


def operating_points(curve: Curve) -> str:
    """The scores at which a wanted precision or recall is reached."""
    rows = ""
    for name, find in (("precision", curve.at_precision), ("recall", curve.at_recall)):
        for wanted in WANTED:
            at = find(wanted)
            cells = (
                ["never reached", "", ""]
                if at is None
                else [
                    f"{curve.score[at]:.3f}",
                    f"{curve.precision[at]:.3f}",
                    f"{curve.recall[at]:.3f}",
                ]
            )
            rows += (
                f"<tr><td>{name} {wanted:g}</td>"
                + "".join(f"<td>{c}</td>" for c in cells)
                + "</tr>"
            )
    head = "<tr><th>wanted</th><th>score</th><th>precision</th><th>recall</th></tr>"
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def calibration_chart(lines: Sequence[tuple[float, float, int]]) -> str:
    """Dots of (score, share right, count)."""
    x0, y0 = _at(0, 0)
    x1, y1 = _at(1, 1)
    ends = f'x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"'
    inside = f'<line {ends} stroke="var(--soft)" stroke-dasharray="4 4"/>'
    most = max([math.sqrt(count) for _, _, count in lines] + [1])
    for score, share, count in lines:
        x, y = _at(score, share)
        size = 3 + 9 * math.sqrt(count) / most
        inside += (
            f'<circle cx="{x}" cy="{y}" r="{size:.1f}" fill="{INK}" fill-opacity=".8">'
            f"<title>{count} boxes of score {score:.2f}: {share:.1%} right</title></circle>"
        )
    return chart(inside, "score", "share that is right")


def speed(outcome: Outcome) -> str:
    """Median and 99th percentile of each step."""
    if outcome.clock is None:
        return "<p>Not measured: these are results from a file.</p>"
    titles = {
        "images": "waiting for images, moving them",
        "network": "network",
        "boxes": "decoding and suppression",
    }
    rows = "".join(
        f"<tr><td>{titles[step]}</td><td>{ms['median']:.1f}</td><td>{ms['p99']:.1f}</td></tr>"
        for step, ms in outcome.clock.summary().items()
    )
    head = "<tr><th>step</th><th>median</th><th>99th percentile</th></tr>"
    return (
        f'<div class="wide"><table>{head}{rows}</table></div>'
        + f"<p>{_text(outcome.row.about.get('device', ''))}</p>"
    )


def class_table(analysis: Analysis) -> str:
    """AP of each class, sortable."""
    heads = ("class", "truths", "AP", "AP50", "AP75", "AR100")
    head = "".join(f"<th><button>{name}</button></th>" for name in heads)
    rows = ""
    for one in analysis.classes:
        cells = f'<td data-value="{_text(one.name)}">{_text(one.name)}</td>'
        cells += f'<td data-value="{one.truths}">{one.truths}</td>'
        for value in (one.ap, one.ap50, one.ap75, one.ar):
            key = "" if value is None else f"{value:.6f}"
            cells += f'<td data-value="{key}">{_percent(value)}</td>'
        rows += f"<tr>{cells}</tr>"
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def confusion_table(table: np.ndarray, names: Sequence[str], limit: int = 20) -> str:
    """The matrix, shaded by share of the true class; of many classes those most confused."""
    wrong = table.sum(0) + table.sum(1) - 2 * np.diag(table)
    shown = np.sort(np.argsort(-wrong[:-1], kind="stable")[:limit]).tolist()
    shown.append(len(names))
    titles = [*names, "background"]
    head = "<th></th>" + "".join(f"<th>{_text(titles[i])}</th>" for i in shown)
    rows = ""
    for i in shown:
        total = max(int(table[i].sum()), 1)
        cells = ""
        for j in shown:
            count = int(table[i, j])
            colour = "47,111,143" if i == j else "200,90,30"
            shade = f"rgba({colour},{0.75 * math.sqrt(count / total):.2f})"
            cells += f'<td style="background:{shade}">{count or ""}</td>'
        rows += f"<tr><th>{_text(titles[i])}</th>{cells}</tr>"
    note = (
        f"<p>The {limit} classes with most errors of {len(names)}.</p>"
        if len(names) > limit
        else ""
    )
    return f'{note}<div class="wide"><table class="heat"><tr>{head}</tr>{rows}</table></div>'


def worst_pictures(folder: Path, outcome: Outcome, analysis: Analysis) -> str:
    """The images with most errors, truths and sure boxes drawn in; also as worst_*.png."""
    truth, results = outcome.truth, outcome.results
    figures = []
    for number, (image, missed, false) in enumerate(analysis.worst, 1):
        mine = truth.image == image
        sure = (results.image == image) & (results.score >= analysis.threshold)
        marks = [
            (box, truth.names[label], TRUE)
            for box, label in zip(truth.boxes_xywh[mine], truth.label[mine], strict=True)
        ] + [
            (box, f"{truth.names[label]} {score:.2f}", FOUND)
            for box, label, score in zip(
                results.boxes_xywh[sure], results.label[sure], results.score[sure], strict=True
            )
        ]
        picture = _picture(outcome, image, marks)
        if picture is not None:
            caption = f"{_file(outcome, image)}: {missed} missed, {false} false"
            figures.append(_figure(folder / f"worst_{number:02}.png", picture, caption))
    return _figures(figures, outcome)


def suspect_pictures(folder: Path, outcome: Outcome, suspects: Sequence[Suspect]) -> str:
    """The first suspects, each enlarged; also as label_*.png."""
    figures = []
    for number, one in enumerate(suspects[:SUSPECTS], 1):
        colour = TRUE if one.found is None else FOUND
        name = one.found or one.labelled or ""
        picture = _picture(
            outcome, one.image, [(np.array(one.box_xywh), name, colour)], around=True
        )
        if picture is None:
            continue
        said = {
            "no label": f"found {one.found}, score {one.score:.2f}, without a label",
            "other class": f"labelled {one.labelled}, found {one.found}, score {one.score:.2f}",
            "nothing there": f"labelled {one.labelled}, nothing found there",
        }[one.kind]
        caption = f"{number}. {said} ({_file(outcome, one.image)})"
        figures.append(_figure(folder / f"label_{number:02}.png", picture, caption))
    return _figures(figures, outcome)


def _figures(figures: Sequence[str], outcome: Outcome) -> str:
    if outcome.val is None:
        return "<p>No pictures: these are results from a file.</p>"
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _place(outcome: Outcome, image: int) -> int | None:
    """The number of an image in the validation set; one whose file is missing has none."""
    if outcome.val is None:
        return None
    at = np.flatnonzero(outcome.val.reader.index.image_ids == outcome.truth.image_ids[image])
    return int(at[0]) if len(at) else None


def _file(outcome: Outcome, image: int) -> str:
    number = _place(outcome, image)
    if number is None or outcome.val is None:
        return f"image id {outcome.truth.image_ids[image]}"
    return outcome.val.reader.index.files[number]


def _picture(
    outcome: Outcome,
    image: int,
    marks: Sequence[tuple[np.ndarray, str, tuple[int, int, int]]],
    *,
    around: bool = False,
) -> np.ndarray | None:
    """An image with boxes (xywh, caption, colour), or the part of it around the first.

    None where there is no file.
    """
    number = _place(outcome, image)
    if number is None or outcome.val is None:
        return None
    try:
        pixels = outcome.val.reader.read(number).image
    except UnreadableImage:
        return None
    corner = np.zeros(2)
    if around:
        x, y, w, h = marks[0][0].tolist()
        half = max(w, h, 64) * 0.9
        height, width = pixels.shape[:2]
        left, top = int(max(x + w / 2 - half, 0)), int(max(y + h / 2 - half, 0))
        left, top = min(left, width - 1), min(top, height - 1)
        right, bottom = (
            int(min(x + w / 2 + half, width)) + 1,
            int(min(y + h / 2 + half, height)) + 1,
        )
        pixels, corner = pixels[top:bottom, left:right], np.array([left, top])
    scale = SIDE / max(pixels.shape[:2])
    size = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    pixels = cv2.resize(
        pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    placed = [
        (np.concatenate([box[:2] - corner, box[:2] - corner + box[2:]]) * scale, name, colour)
        for box, name, colour in marks
    ]
    return draw_labelled(pixels, placed)


def _figure(path: Path, picture: np.ndarray, caption: str) -> str:
    save_image(path, picture)
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    inside = base64.b64encode(data.tobytes()).decode()
    return (
        f'<figure><img alt="{_text(caption)}" src="data:image/jpeg;base64,{inside}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )
