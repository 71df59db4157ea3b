"""Annotation formats, each read into the same `Index`.

Read `data_yaml` first (the keys of a data YAML), then `splits` (finds a split, detects its format, reads
it), `coco`, and `image_label_pairs` with its two formats, `yolo_txt` and `voc` (`voc_images`: which xml
file belongs to which image). `coco_names` are the class names of the published weights.
"""
