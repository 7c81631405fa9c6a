"""One recipe per encoder: a checkpoint becomes one ONNX graph, waveform → embedding."""
