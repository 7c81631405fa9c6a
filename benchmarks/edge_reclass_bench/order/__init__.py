"""``edge-reclass bench order``: order of stages, windows and thresholds by cost, from one hearing of all tracks."""
