"""Detectors: boxes, regions of feature maps, and how detections are scored."""
