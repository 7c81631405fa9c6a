"""``edge-reclass calibrate``: thresholds whose risk is certified. Needs the extra [fit], and no torch.

testing.py      the exact binomial test, and testing in a fixed order
paths.py        which policies, and which least confidences, are tested in which order
certify.py      choose on one part, test on the other
tracks.py       which tracks are counted: one of each artist
hearing.py      what every stage says of them on a device, and what that takes
calibrating.py  from a bundle and tracks to a bundle with a certificate
writing.py      that bundle on the disk
checking.py     count again on another device
screen.py       what is said of both
command.py      the command
"""
