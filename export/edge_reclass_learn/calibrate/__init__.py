"""``edge-reclass calibrate``: thresholds whose risk is certified. Needs the extra [fit], and no torch.

testing.py   the exact binomial test, and testing in a fixed order
paths.py     which policies, and which least confidences, are tested in which order
tracks.py    which tracks are counted: one of each artist
hearing.py   what every stage says of them on a device, and what that takes
certify.py   choose on one part, test on the other
checking.py  count again on another device
writing.py   the bundle with its certificate
command.py   the command
"""
