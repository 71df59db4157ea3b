"""Observers of a training run: they record, report or stop it, and never change its arithmetic.

Read `base` (the events of a run), then any of: `console` (progress bar, a line per epoch), `files`
(results.csv, events.jsonl, checkpoints, the picture of the first batch), `manifest` (manifest.json),
`plots` (curves.png, labels.png, val.jpg), `trackers` (TensorBoard, Weights & Biases, MLflow),
`throughput` (images/s and the bottleneck), `limits` (end a run after a time or a number of batches).
"""
