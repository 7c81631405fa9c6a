"""Labelled music: which tracks, which genre, and which tracks belong together.

labelled.py     folders named after genres, or a table
unlabelled.py   a folder of music, or a table of paths
features.py     vectors that somebody computed before, with their labels
corrections.py  what people said in a state file
groups.py       which tracks belong together: artist, album, the same recording
folds.py        parts that share no group
"""
