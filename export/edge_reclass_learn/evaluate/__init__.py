"""``edge-reclass evaluate``: how good bundles are on labelled tracks.

record.py       every figure that is shown, as it is written to disk
"""
