"""Audio in a request's body: into a file without a name, which is gone with its descriptor whatever happens."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

from starlette.requests import ClientDisconnect, Request

from edge_reclass_service.bodies import chunks
from edge_reclass_service.problems import Problem
from edge_reclass_service.service import service_of

DISK_FREE = 256 << 20
"""Bytes that stay free where the state and what is received lie."""

_AT_ONCE = 1 << 20


@asynccontextmanager
async def received(request: Request, limit: int, head: bytes = b"") -> AsyncIterator[tuple[IO[bytes], int]]:
    """The body in a temporary file, behind ``head``, and how many bytes the body has.

    Raises:
        Problem: 413 larger than ``limit``, 408 too slow, 507 no space, 400 cut off, 503 the service stops.
    """
    spool = service_of(request).settings.spool
    with tempfile.TemporaryFile(dir=spool) as file:
        total, buffer = 0, bytearray(head)

        def write() -> None:
            if shutil.disk_usage(spool).free < DISK_FREE + len(buffer):
                raise OSError(errno.ENOSPC, "")
            file.write(buffer)
            file.flush()

        try:
            async for chunk in chunks(request, limit):
                buffer += chunk
                total += len(chunk)
                if len(buffer) >= _AT_ONCE:
                    await asyncio.to_thread(write)
                    buffer.clear()
            await asyncio.to_thread(write)
        except ClientDisconnect:
            raise Problem(400, "body", "the body was cut off") from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise Problem(507, "no-space", f"there is no space for this in {spool}") from error
        service_of(request).metrics.received(total)
        yield file, total
