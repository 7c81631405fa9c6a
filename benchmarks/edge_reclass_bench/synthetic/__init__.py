"""A bundle of true size with untrained weights: what a device costs, before any checkpoint is at hand."""

from __future__ import annotations

from edge_reclass_bench.synthetic.build import ENCODERS, make

__all__ = ["ENCODERS", "make"]
