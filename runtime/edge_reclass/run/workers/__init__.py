"""Worker processes: what reads files runs outside of the process with the encoders.

wire.py      what the two sides say to one another, and the memory that they share
child.py     what runs in a worker
process.py   a worker as its parent sees it: started, asked with a deadline, ended
remote.py    a track that is open in a worker, as a cascade hears it
pool.py      lanes with a worker each
"""

from __future__ import annotations
