"""``edge-reclass fit``: a bundle with genres of your own, from labelled music. Needs the extra [fit], and no torch.

tracks.py       labelled tracks: folders named after genres, or a table
corrections.py  labelled tracks: what people said in a state file
listening.py    what a bundle's policies ask of its stages
hearing.py      tracks → embeddings, through the runtime's own cascade
cache.py        keeps what was heard, so that a fit can be interrupted and repeated
memory.py       what a bundle keeps of the tracks that it was fitted on
examples.py     embeddings with their genre and group
groups.py       which tracks belong together: artist, album, the same recording
folds.py        parts that share no group
heads.py        embeddings → heads and temperatures
ranges.py       embeddings → the range test
nonsense.py     made signals that are no music
judging.py      what heads say of tracks that they were not fitted on
held_back.py    new genres held back, so that old ones are kept
policies.py     policies replayed on that; their thresholds
doubts.py       whether the source gives the genre away; labels that look wrong
gain.py         the new bundle against its base
bundle.py       the new bundle on disk
card.py         its figures, as its README
outcome.py      the figures of a fit
fitting.py      all of it in order
command.py      the command
"""
