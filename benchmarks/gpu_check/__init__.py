"""Checks and measures edge-reclass on a machine with a GPU, in stages that fit several short calls.

Run through ``benchmarks/gpu_check.sh``; ``docs/gpu-check.md`` describes it. Every stage runs in a process
of its own, keeps what it found in a state folder item by item, and goes on there when it is called again.
"""
