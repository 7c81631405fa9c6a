"""The starter bundle: from research clips and the musicnn wheel to a bundle with a model card, by one command.

Not in the wheel: only this repository builds it, with ``PYTHONPATH=export python -m starter --data FOLDER -o FOLDER``.

catalogue.py    which clips there are, which genre each stands for, and who belongs together
nonsense.py     made signals that are no music
embeddings.py   clips and made signals → embeddings, through the runtime's own cascade
fitting.py      embeddings → heads and temperatures
ranges.py       embeddings → the range test
evaluation.py   grouped cross-validation, other artists, a source left out; thresholds
measure.py      what the finished bundle says of nonsense, of softer copies, of clips from elsewhere
card.py         the figures as the bundle's README
build.py        all of it, and the bundle on disk
__main__.py     the command
"""
