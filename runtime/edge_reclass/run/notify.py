"""What a service tells systemd about itself: sd_notify's protocol, over the standard library.

systemd puts the address of a datagram socket into ``NOTIFY_SOCKET``; a message is lines of ``NAME=value`` in one
datagram (sd_notify(3)). Without the variable nothing is sent. A message that cannot be delivered is no reason to stop
classifying: ``send`` answers False and goes on, and systemd's own watchdog notices the silence.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

NOTIFY_VARIABLE = "NOTIFY_SOCKET"
_STATUS_CHARACTERS = 200


def send(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``lines`` (each ``NAME=value``) as one message; True where it was delivered.

    False without ``NOTIFY_SOCKET``, with an address that is neither a path nor abstract (``@name``), and where the
    socket cannot be reached. It never waits: a full queue counts as not delivered.

    Raises:
        ValueError: a line is not ``NAME=value``, or holds a line break, which would begin another assignment.
    """
    for line in lines:
        if "=" not in line or "\n" in line:
            raise ValueError(f"expected NAME=value without a line break, got {line!r}")
    address = environ.get(NOTIFY_VARIABLE, "")
    if address[:1] not in {"/", "@"}:
        return False
    # An abstract address is written with @ and begins with a zero byte.
    path = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as channel:
            channel.sendto("\n".join(lines).encode(), path)
    except OSError:
        return False
    return True


def ready(text: str | None = None, environ: Mapping[str, str] = os.environ) -> bool:
    """The start is over: everything is open. From now on the watchdog counts."""
    return send("READY=1", *_status(text), environ=environ)


def alive(text: str | None = None, environ: Mapping[str, str] = os.environ) -> bool:
    """A piece of work was done: the watchdog starts counting anew."""
    return send("WATCHDOG=1", *_status(text), environ=environ)


def stopping(text: str | None = None, environ: Mapping[str, str] = os.environ) -> bool:
    """The end has begun; what follows may take as long as ``TimeoutStopSec``."""
    return send("STOPPING=1", *_status(text), environ=environ)


def _status(text: str | None) -> tuple[str, ...]:
    """At most one STATUS line, on one line and short: part of it may be a file's name."""
    if text is None:
        return ()
    line = " ".join(text.split())
    # A name that is no UTF-8 arrives as lone surrogates, which cannot be encoded.
    return (f"STATUS={line[:_STATUS_CHARACTERS].encode('utf-8', 'replace').decode()}",)
