"""What others find on the same folds: the table of ``edge-reclass evaluate --baselines``.

sources.py     features of other libraries, each with its version and what to install
extracting.py  tracks → features, kept as they are extracted
models.py      how each approach learns, out of fold
importance.py  how much an approach rests on each group of features
table.py       the table
"""
