"""``edge-reclass evaluate``: how good bundles are on labelled tracks.

evaluating.py   all of the following, in this order
hearing.py      bundles and labelled tracks → what each bundle's stages hear of them
verdicts.py     what a bundle says: its own heads, or heads of folds
running.py      the real cascade on a sample: times, precisions, devices
measuring.py    verdicts and labels → figures; breakdowns.py by what files are; intervals.py with their intervals
comparing.py    two bundles on the same tracks
trial.py        the same tracks and folds for baselines (other approaches) and encoders.py (linear probes)
record.py       every figure that is shown, as it is written to disk
screen.py       as lines; page.py, tables.py and figures.py as a page
"""
