"""The document: what it promises is so. Schemathesis asks the service for everything that the document allows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_reclass.client import Client
from edge_reclass.errors import UsageError
from edge_reclass_service.routes import ALL
from served import Served, serving

LARGE = os.environ.get("EDGE_RECLASS_SERVICE_LARGE") == "1"


def test_every_route_is_described(service: Served) -> None:
    document = service.get("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert described == {*((one.method, re.sub(r":\w+}", "}", one.path)) for one in ALL), ("GET", "/openapi.json")}
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"] and operation["description"]
            assert "200" in operation["responses"] or "202" in operation["responses"] or "204" in operation["responses"]


def test_every_reference_leads_somewhere(service: Served) -> None:
    answer = service.get("/openapi.json")
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', answer.body.decode()))
    assert {"Verdict", "Score", "StageReport", "ProblemBody", "Ready"} <= names
    assert names == set(answer.json["components"]["schemas"])


@pytest.mark.parametrize("path", ["/v1/scans", "/v1/tag-plans"])
def test_as_many_and_as_long_paths_are_taken_as_the_document_says(service: Served, path: str) -> None:
    document = service.get("/openapi.json").json
    reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]["paths"]
    most, longest = schema["maxItems"], schema["items"]["maxLength"]
    name = "/" + "x" * (longest - 1)
    assert service.ask("POST", path, {"paths": [name] * most}).kind == "outside-roots"
    assert service.ask("POST", path, {"paths": ["/"] * (most + 1)}).kind == "body"
    assert service.ask("POST", path, {"paths": [name + "x"]}).kind == "body"
    with pytest.raises(UsageError, match=f"at most {most}"):
        Client(service.socket).start_scan(["/"] * (most + 1))


def test_the_document_is_kept(tiny_bundle: Path, library: Path, tmp_path: Path) -> None:
    """A few requests of each kind; hundreds with EDGE_RECLASS_SERVICE_LARGE=1. Streams are left out."""
    pytest.importorskip("schemathesis", reason="the document is tried by schemathesis (extra [dev], Python 3.11)")
    examples, phases = (200, "examples,coverage,fuzzing") if LARGE else (3, "fuzzing")
    options = ("--root", library, "--state", tmp_path / "music.state", "--bundle", tiny_bundle, "--workers", 1)
    options += ("--listen", "127.0.0.1:0")
    with serving(tmp_path, *options) as served:
        (address,) = re.findall(r"listening on (http://\S+)", served.said())
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"]
        command += [
            "--phases",
            phases,
            "--max-examples",
            str(examples),
            "--seed",
            "1",
            "--no-color",
            "--request-timeout",
            "60",
        ]
        command += ["--exclude-path-regex", "/v1/events"]
        hooks = Path(__file__).with_name("asked_by_schemathesis.py")
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(hooks)},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert served.process.poll() is None, served.said()
