"""Benchmarks: speed of edge-reclass, measured side by side with its peers in one run."""
