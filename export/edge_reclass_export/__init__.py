"""Checkpoints → ONNX → bundles: the once-per-device half. Imports the runtime, never the reverse."""
