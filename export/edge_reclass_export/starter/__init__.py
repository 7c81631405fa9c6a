"""The starter bundle: from research clips and the musicnn wheel to a bundle with a model card, by one command.

catalogue.py    which clips there are, which genre each stands for, and who belongs together
embeddings.py   clips → embeddings of equal cuts, through the runtime's own code
fitting.py      embeddings → heads and temperatures
evaluation.py   grouped cross-validation, accuracy per length, baselines, thresholds
card.py         the figures as the bundle's README
build.py        all of it, and the bundle on disk
"""
