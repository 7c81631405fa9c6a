"""The verdict as a record: what is written can be read back, and its JSON Schema says what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bundles
import synth
from edge_reclass import Cascade, Status, Verdict
from edge_reclass.verdict import DamageSeen, ExcerptSeen, Part, ReasonCode, Score, StageReport, WindowsSeen


def made(**changes: Any) -> Verdict:
    seen = ExcerptSeen(1.25, 30.0)
    stages = (
        StageReport("fma", None, None, 1.5, seen),
        StageReport("mert", "Rock", 0.875, 20.125, seen, (Part("run", 1.0),), True, 1.5, WindowsSeen(3, 10)),
    )
    values: dict[str, Any] = {
        "genre": "Rock",
        "confidence": 0.875,
        "decided_by": "mert",
        "reason": "last stage of two",
        "reason_code": ReasonCode.LAST_STAGE,
        "top": (Score("Rock", 0.875), Score("Pop", 0.125)),
        "stages": stages,
        "damage": DamageSeen(1, 20, 0.05, 31.5),
        "channel": 1,
        "bundle_digest": "0" * 64,
        "program": "edge-reclass 0.1.0",
        "at": "2026-01-02T03:04:05+00:00",
        "size": 1234,
        "mtime_ns": 1,
        "decode_milliseconds": 3.0,
    }
    return Verdict("a\udcff.mp3", bundle="starter", policy="two", **{"status": Status.OK, **values, **changes})


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    folder = tmp_path_factory.mktemp("verdicts")
    root = bundles.make_bundle(folder / "bundle", [bundles.fma_stage(), bundles.waveform_stage("mert")])
    music = synth.write(folder / "a.wav", synth.music(12.0, 44_100, 1), 44_100)
    silence = synth.write(folder / "b.wav", synth.music(12.0, 44_100, 1) * 0, 44_100)
    with Cascade.open(root) as cascade:
        return [cascade.classify(path) for path in (music, silence, folder / "none.mp3", root)] + [made()]


def test_what_is_written_can_be_read_back(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        plain = json.loads(verdict.to_json())
        again = Verdict.from_dict(plain)
        assert again.to_dict() == verdict.to_dict()
        assert json.loads(again.to_json()) == plain
        assert isinstance(again.status, Status)
    assert verdicts[-1].to_dict()["stages"][1]["windows"] == {"heard": 3, "of": 10}
    plain = verdicts[-1].to_dict()
    del plain["stages"][0]["windows"]  # as verdicts were written before there were steps on windows
    assert Verdict.from_dict(plain) == Verdict.from_dict(verdicts[-1].to_dict())


def test_what_is_no_verdict_is_refused() -> None:
    plain = made().to_dict()
    for wrong in (
        {"format": 2},
        {"status": "fine"},
        {"reason_code": "because"},
        {"colour": 1},
        {"top": [{"genre": 1}]},
    ):
        with pytest.raises(ValueError, match=r"expected 1|is not a valid|not a verdict"):
            Verdict.from_dict({**plain, **wrong})
    del plain["path"]
    with pytest.raises(ValueError, match=r"not a verdict: .*path"):
        Verdict.from_dict(plain)


def test_a_record_says_what_classified_which_file(verdicts: list[Verdict], tmp_path: Path) -> None:
    music, _, missing, _, _ = verdicts
    status = Path(music.path).stat()
    assert (music.size, music.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (missing.status, missing.size, missing.mtime_ns) == (Status.MISSING, None, None)
    for verdict in verdicts:
        assert verdict.bundle_digest is not None and len(verdict.bundle_digest) == 64
        assert verdict.program == "edge-reclass 0.1.0" and verdict.at is not None and verdict.at.endswith("+00:00")


def test_words_are_their_text() -> None:
    verdict = made()
    assert verdict.ok and verdict.status == "ok" and f"{verdict.status:>4}" == "  ok" and str(verdict.status) == "ok"
    assert {"ok": 1}[verdict.status] == 1
    assert json.dumps([verdict.status, verdict.reason_code]) == '["ok", "last_stage"]'
    assert not made(status=Status.UNSURE).ok and not made(status=Status.UNSURE).failed


def holds(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """The part of JSON Schema that is used here."""
    if "$ref" in schema:
        return holds(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], value, root)
    if "anyOf" in schema:
        return any(holds(one, value, root) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if isinstance(schema["type"], list):
        return any(holds({**schema, "type": one}, value, root) for one in schema["type"])
    kinds = {"string": str, "number": (int, float), "integer": int, "null": type(None), "boolean": bool}
    if schema["type"] == "array":
        return isinstance(value, list) and all(holds(schema["items"], item, root) for item in value)
    if schema["type"] == "object":
        keys = schema["properties"]
        return (
            isinstance(value, dict)
            and set(value) == set(schema["required"]) == set(keys)
            and all(holds(keys[key], item, root) for key, item in value.items())
        )
    return isinstance(value, kinds[schema["type"]])


def test_the_schema_says_what_is_written(verdicts: list[Verdict]) -> None:
    schema = Verdict.json_schema()
    for verdict in verdicts:
        plain = json.loads(verdict.to_json())
        assert holds(schema, plain, schema), plain
        assert not holds(schema, {**plain, "genre": 1}, schema)
        assert not holds(schema, {key: value for key, value in plain.items() if key != "at"}, schema)
        assert not holds(schema, {**plain, "status": "fine"}, schema)
