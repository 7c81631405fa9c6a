"""``edge-reclass serve``: one resident process that classifies tracks for other programs, over HTTP.

command.py    the command and its options
settings.py   what the service was started with
listening.py  the sockets: Unix, TCP, or handed over by systemd
serving.py    starts everything, waits, and stops it in time
service.py    what a handler gets at: settings, engine, metrics
engine.py     a bounded number of requests on one pool of workers
probe.py      the synthesised track that goes through every stage before the service is ready
app.py        routes, in one list that the OpenAPI document is made from too
access.py     who may ask, from where, and which files
uploads.py    audio in a request's body
routes/       one module per subject
"""
