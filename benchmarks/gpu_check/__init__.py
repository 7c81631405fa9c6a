"""Does edge-reclass give the right numbers on a machine with a GPU, and how fast? In one short call; docs/gpu-check.md.

Stages of ``edge_reclass_bench``, each in a process of its own, whose items are journaled one by one.
"""

STAGES = {
    "ceilings": "gpu_check.ceilings",
    "openjmla": "gpu_check.encoders",
    "mert-95m": "gpu_check.encoders",
    "cascade": "gpu_check.cascade",
    "mert-330m": "gpu_check.encoders",
    "compile": "gpu_check.encoders",
}
"""Stage → the module whose ``run(work)`` does it; by value, for the call may be cut."""

RTX_STAGES = {"rtx": "gpu_check.rtx"}
"""Those of a second call."""

BUNDLES = {"openjmla": "cascade", "mert-95m": "cascade", "mert-330m": "mert-330m"}
"""Encoder → the bundle that it is carried in."""
