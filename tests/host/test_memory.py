"""How much memory there is: the machine's, or less where a control group has a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_reclass.host import usable_memory


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_limit_counts_where_it_is_lower(tmp_path: Path, file: str) -> None:
    whole = usable_memory(tmp_path)
    assert whole > 1 << 28
    limit = tmp_path / "sys/fs/cgroup" / file
    limit.parent.mkdir(parents=True)
    for text, expected in (("max\n", whole), ("9223372036854771712\n", whole), ("104857600\n", 100 << 20)):
        limit.write_text(text)
        assert usable_memory(tmp_path) == expected
