"""The service as a process: it starts, says when it is ready, and stops."""

from __future__ import annotations

import edge_reclass
from served import Served


def test_it_lives_is_ready_and_says_what_it_is(service: Served) -> None:
    assert service.get("/health/live").json == {"status": "live"}
    ready = service.get("/health/ready").json
    assert [stage["name"] for stage in ready["probe"]["stages"]] == ["fma", "mert"]
    assert {stage["device"] for stage in ready["probe"]["stages"]} == {"cpu"}
    assert [stage["precision"] for stage in ready["probe"]["stages"]] == [None, "fp32"]
    assert all(stage["seconds"] > 0 for stage in ready["probe"]["stages"])
    version = service.get("/v1/version").json
    assert version["program"] == f"edge-reclass {edge_reclass.__version__}"
    assert version["bundle"]["genres"] == ["Alpha", "Beta", "Gamma"] and version["bundle"]["stages"] == ["fma", "mert"]
    assert (version["device"], version["workers"], version["policy"]) == ("cpu", 1, "ladder")
