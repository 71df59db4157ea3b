"""Pictures: `draw` (boxes on images), `predictions` (ground truth beside detections)."""
