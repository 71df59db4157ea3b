"""The report of an evaluation: one self-contained HTML file, and its pictures as PNG.

Read `document` (the page, section by section; `class_document` of a classifier), `charts` (what each
chart shows), `shapes` (a drawing as SVG and as PNG), `tables` and `error_images` (worst images, label
errors); `style` has the CSS and script.
"""

from detector.html_report.class_document import write_class_report
from detector.html_report.document import write_report

__all__ = ["write_class_report", "write_report"]
