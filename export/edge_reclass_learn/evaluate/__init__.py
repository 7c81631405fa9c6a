"""``edge-reclass evaluate``: how good bundles are on labelled tracks.

record.py       every figure that is shown, as it is written to disk
gathering.py    bundles and labelled tracks → what each bundle's stages hear of them
verdicts.py     what a bundle says: its own heads, or heads of folds
measuring.py    verdicts and labels → figures; breakdowns.py by what files are; intervals.py with their intervals
comparing.py    two bundles on the same tracks
running.py      the real cascade on a sample: times, precisions, devices
evaluating.py   all of that together
screen.py       as lines; page.py, tables.py and figures.py as a page
"""
