"""The starter bundle: from research clips and the musicnn wheel to a bundle with a model card, by one command.

Heads, range tests and the made signals that are no music: ``edge_reclass_learn.fit``, as for ``edge-reclass fit``.

Not in the wheel: only this repository builds it, with ``PYTHONPATH=export python -m starter --data FOLDER -o FOLDER``.

catalogue.py    which clips there are, which genre each stands for, and who belongs together
embeddings.py   clips and made signals → embeddings, through the runtime's own cascade
heard.py        heads by stage, what they say, and the runtime's own decision on that
judging.py      answers out of fold, of other artists, of a source left out; temperatures
policies.py     the policies, what they cost, and the thresholds of the default one
figures.py      how good and how honest a policy is on some clips
measure.py      costs; what the finished bundle says of nonsense, of softer copies, of clips from elsewhere
remembered.py   what the bundle keeps for edge-reclass fit
card.py         the figures as the bundle's README (card.md), and as that of plus (plus.md)
tables.py       Markdown tables
build.py        all of it, and the bundle on disk
plus.py         heads and policies of starter plus, see edge_reclass_export.plus
__main__.py     the command
"""
