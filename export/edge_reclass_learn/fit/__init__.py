"""``edge-reclass fit``: a bundle with genres of your own, from labelled music. Needs the extra [fit], and no torch.

heads.py        embeddings → logistic heads and temperatures
mlp.py, trees.py  embeddings → heads of other kinds
ranges.py       embeddings → the range test
judging.py      what heads say of tracks that they were not fitted on
held_back.py    new genres held back, so that old ones are kept
policies.py     policies replayed on that; their thresholds
doubts.py       whether the source gives the genre away; labels that look wrong
gain.py         the new bundle against its base
contest.py      other kinds of heads against logistic ones
alone.py        a base with one stage alone, for vectors in place of audio
bundle.py       the new bundle on disk
card.py         its figures, as its README
outcome.py      the figures of a fit
fitting.py      all of it in order
command.py      the command
"""
