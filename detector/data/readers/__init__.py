"""Annotation formats: `description` (the data YAML), `coco`, `yolo_txt` and `voc`."""
