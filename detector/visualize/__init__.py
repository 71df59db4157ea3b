"""Pictures: `draw` (boxes on images, contact sheets), `predictions` (ground truth beside
detections), `landscape_plots`.
"""
