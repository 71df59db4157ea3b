"""The report of an evaluation: one HTML file without anything from outside, and its pictures.

Read `report` (the page, part by part), `charts` (what each chart shows), `shapes` (a drawing as SVG and
as PNG), `tables` and `pictures` (worst images, doubtful labels); `style` has the page's CSS and script.
"""

from detector.html_report.document import write_report

__all__ = ["write_report"]
