"""The starter bundle, opened once for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_reclass import Cascade


@pytest.fixture(scope="module")
def cascade() -> Iterator[Cascade]:
    with Cascade.open(threads=1) as opened:
        yield opened
