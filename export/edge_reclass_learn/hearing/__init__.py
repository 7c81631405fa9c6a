"""Tracks → embeddings, as the stages of a bundle hear them.

listening.py  what a bundle's policies ask of its stages
hear.py       tracks → embeddings, through the runtime's own cascade
cache.py      keeps what was heard, so that it need not be heard again
copies.py     softer, shorter and duller copies of a track
recording.py  one track → what every stage says at every step, and what that takes
nonsense.py   made signals that are no music
memory.py     what a bundle keeps of the tracks that it was fitted on
examples.py   embeddings with their genre and group
gather.py     labelled tracks → examples in their groups
"""
