"""The report of an evaluation: one self-contained HTML file, and its pictures as PNG.

Read `document` (the page, section by section), `charts` (what each chart shows), `shapes` (a drawing as
SVG and as PNG), `tables` and `error_images` (worst images, label errors); `style` has the CSS and script.
"""

from detector.html_report.document import write_report

__all__ = ["write_report"]
