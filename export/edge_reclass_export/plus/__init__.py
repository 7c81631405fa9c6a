"""Starter plus: the embedded starter, an encoder that the user has the weights of, and a head that is shipped for it.

    parts.py        what the project ships: plus.yaml, heads, the model card
    assemble.py     starter + encoders + parts → bundle

``python -m starter`` fits and writes the parts; no weight of an encoder is among them.
"""
