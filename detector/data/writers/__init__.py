"""Data sets written to disk.

Read `convert` (an index as COCO json or YOLO txt), then `subset` (a few images as a data set).
"""
