"""Where a service holds the lock of a state: it is asked to write, or lends the state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_reclass.cli.stopping import say
from edge_reclass.errors import StateBusyError
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.client import Client
    from edge_reclass.library.state import State


def service_of(path: Path) -> Client | None:
    """The service that holds the lock of a state; None where nobody does, or there is no state yet.

    Raises:
        StateBusyError: another process than a service holds it.
        UsageError: the state file cannot be used.
    """
    from edge_reclass.library.state import State

    if not path.exists():
        return None
    try:
        State.open(path, write=True).close()
    except StateBusyError as busy:
        return _client(busy)
    return None


@contextmanager
def writable(path: Path, *, create: bool = False) -> Iterator[State]:
    """A state, open for writing. Where a service holds it, it lends it, and waits until we are done.

    Raises:
        StateBusyError: another process than a service holds it.
        UsageError: the state file cannot be used.
        ServiceError: the service does not lend it.
    """
    from edge_reclass.library.state import State

    with ExitStack() as held:
        try:
            state = State.open(path, write=True, create=create)
        except StateBusyError as busy:
            client = _client(busy)
            held.enter_context(client.borrow_state())
            say(printable(f"{path}: the service at {busy.socket} waits until this is done"))
            state = State.open(path, write=True, create=create, socket=busy.socket)  # others ask it, and wait
        held.enter_context(state)
        yield state


def _client(busy: StateBusyError) -> Client:
    if busy.socket is None:
        raise busy
    from edge_reclass.client import Client

    return Client(os.fspath(busy.socket))
