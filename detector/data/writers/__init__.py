"""Data sets written in COCO json or YOLO txt."""
