"""Who may ask: the Host that was meant, the Origin that a page came from, the token.

A page in a browser can be made to send requests to any address that the browser's machine reaches. A name of its own
that it points at this service (DNS rebinding) shows in ``Host``; a request that another site's page makes shows in
``Origin`` and ``Sec-Fetch-Site``.
"""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_reclass_service.problems import Problem
from edge_reclass_service.settings import Settings

UNIX_HOSTS = frozenset({"", "localhost", "unix", "edge-reclass"})
"""What clients write as Host on a Unix socket, where it means nothing."""

OPEN_TO_ALL = frozenset({"/health/live"})
"""Asked without a token by whatever starts and restarts services; it says nothing."""

_READING = frozenset({"GET", "HEAD"})


class Access:
    """ASGI middleware: refuses what must not come in, before anything of it is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http":
            try:
                self.check(scope)
            except Problem as problem:
                return await problem.response(scope, receive, send)
        return await self._app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Look at a request's head.

        Raises:
            Problem: 400 a foreign Host, 401 no or a wrong token, 403 another site's page.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        server = scope.get("server") or ("", None)
        over_tcp = server[1] is not None  # on a Unix socket there is no port
        if not self._is_ours(host_name(host), str(server[0]) if over_tcp else None):
            known = "localhost" if not over_tcp else "the address that it listens on, or a name given with --allow-host"
            raise Problem(400, "host", f"Host: {host[:100]!r} is not a name of this service; expected {known}")
        if scope["method"] not in _READING:
            _check_origin(headers, host)
        token = self._settings.token
        if over_tcp and token is not None and scope["path"] not in OPEN_TO_ALL:
            _check_token(headers, token)

    def _is_ours(self, name: str, address: str | None) -> bool:
        if address is None:
            return name in UNIX_HOSTS
        if name in self._settings.hosts:
            return True
        try:
            here = _plain(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if name == "localhost":
            return here.is_loopback
        try:
            return (
                _plain(ipaddress.ip_address(name)) == here
            )  # a browser has an address as Host only if a person wrote it
        except ValueError:
            return False


def host_name(host: str) -> str:
    """The name of a Host header without its port, in lower case; of ``[::1]:80`` what is in the brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address as such: who listens on ``[::]`` sees those that come as ``::ffff:a.b.c.d``."""
    return getattr(address, "ipv4_mapped", None) or address


def _check_origin(headers: Headers, host: str) -> None:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    same = origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
    if not same or site not in ("none", "same-origin"):
        raise Problem(403, "origin", "a page of another site must not change anything here")


def _check_token(headers: Headers, token: bytes) -> None:
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token):
        what = "a wrong token" if given else "no token"
        raise Problem(401, "token", f"{what}; expected Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
