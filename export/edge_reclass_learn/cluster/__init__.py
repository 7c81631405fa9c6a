"""``edge-reclass cluster``: unlabelled music → clusters that sound alike → names → labelled data for ``fit``.

reading.py     folders, tables and state files → embeddings, and what the bundle says
space.py       embeddings → points: standardised, equally weighted, their main directions
clustering.py  points → clusters: K-Means, HDBSCAN
stability.py   how many clusters
describing.py  what a cluster holds, and what it may be taken for by mistake
record.py      what is kept of a clustering
page.py        the page to listen and to name on
finding.py     all of it, in this order
naming.py      names of clusters → labelled tracks
command.py     the command
"""
