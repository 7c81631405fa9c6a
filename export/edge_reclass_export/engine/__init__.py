"""ONNX → engines on this device: what to build, building it in a child process, and proving that it is right."""
