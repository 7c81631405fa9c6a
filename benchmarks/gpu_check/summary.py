"""All stages' records as one JSON file, and as tables for people. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_check.journal import load_record, write_atomically

__all__ = ["collect", "table", "write"]

RESULTS, TABLES = "gpu_check.json", "gpu_check.md"
Rows = list[list[str]]


def collect(state: Path, stages: Sequence[str]) -> dict[str, Any]:
    """Every stage's record; a stage that has none yet is null. A folder with an earlier ``gpu_check.json`` does too."""
    earlier = load_record(state / RESULTS) or {"stages": {}}
    found = {}
    for stage in stages:
        found[stage] = load_record(state / "records" / f"{stage}.json") or earlier["stages"].get(stage)
    return {"format": 1, "settings": load_record(state / "settings.json"), "stages": found}


def write(state: Path, out: Path, stages: Sequence[str]) -> list[Path]:
    """Writes ``gpu_check.json`` and ``gpu_check.md`` into ``out``."""
    everything = collect(state, stages)
    write_atomically(out / RESULTS, json.dumps(everything, indent=1))
    write_atomically(out / TABLES, markdown(everything))
    return [out / RESULTS, out / TABLES]


def table(state: Path, stages: Sequence[str]) -> str:
    """The stages and what became of them, one line each."""
    lines = []
    for stage, record in collect(state, stages)["stages"].items():
        lines.append(f"{stage:<10} {_state_of(record)}")
    return "\n".join(lines)


def _state_of(record: dict[str, Any] | None) -> str:
    if record is None:
        return "not run"
    counts: dict[str, int] = {}
    for item in record["items"].values():
        counts[item["status"]] = counts.get(item["status"], 0) + 1
    parts = [f"{count} {status}" for status, count in sorted(counts.items())]
    if record["left"]:
        parts.append(f"{len(record['left'])} left")
    return f"{record['status']:<9} {record['seconds']:>6.0f} s  {', '.join(parts)}"


def markdown(everything: dict[str, Any]) -> str:
    """The page. Only what was measured stands in it."""
    stages = everything["stages"]
    labels = sorted({record["label"] for record in stages.values() if record})
    lines = ["# GPU check", "", *(f"**{label}**" for label in labels), ""]
    lines += _grid(["stage", "status"], [[name, _state_of(record)] for name, record in stages.items()])
    for name, section in _SECTIONS.items():
        record = stages.get(name)
        if record is not None:
            lines += ["", f"## {name}", "", *section(record, everything)]
            lines += _wrong(record)
    return "\n".join(lines) + "\n"


def _wrong(record: dict[str, Any]) -> Iterator[str]:
    lines = [
        f"- {name}: {item['status']}: {_why(item)}" for name, item in record["items"].items() if item["status"] != "ok"
    ]
    lines += [f"- {name}: left for another call" for name in record["left"]]
    if "error" in record:
        lines.append(f"- the stage: {record['error']}")
    if lines:
        yield from ["", *lines]


def _why(item: dict[str, Any]) -> str:
    return str(item.get("reason") or item.get("error") or "; ".join(item["result"]["faults"]))


def _ok(record: dict[str, Any]) -> dict[str, Any]:
    """What was measured; numbers that are wrong were measured too."""
    return {name: item["result"] for name, item in record["items"].items() if item["status"] in ("ok", "wrong")}


def _grid(head: list[str], rows: Rows) -> list[str]:
    if not rows:
        return ["nothing was measured"]
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _setup(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    rows = []
    for name in ("packages", "machine"):
        found = _ok(record).get(name) or {}
        rows += [[key, str(value)] for key, value in found.items() if key != "probe"]
    return _grid(["what", "found"], rows)


def _ceilings(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    return _grid(
        ["ceiling", "median", "unit"],
        [[name, _number(found["value"]), found["unit"]] for name, found in _ok(record).items()],
    )


def _export(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    rows = [
        [name, _number(found["seconds"]), _number(found["peak_gb"]), ", ".join(_sizes(found["megabytes"]))]
        for name, found in _ok(record).items()
        if "seconds" in found
    ]
    return _grid(["encoder", "seconds", "peak GB so far", "files"], rows)


def _sizes(megabytes: dict[str, float]) -> list[str]:
    return [f"{name.split('.')[-2]} {size:g} MB" for name, size in megabytes.items()]


def _build(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in _ok(record).items():
        if "build_seconds" in found:
            rows.append([name, f"{found['build_seconds']:.1f} s, {found['megabytes']:.1f} MB; {found['verified']}"])
        else:
            rows.append([name, "; ".join(f"{key}: {value}" for key, value in found.items())])
    return _grid(["engine", "result"], rows)


def _verify(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in _ok(record).items():
        for check in found["checks"]:
            rows.append(
                [
                    name,
                    str(check["batch"]),
                    check["against"],
                    f"{check['cosine']:.7f}",
                    f"{check['relative']:.2e}",
                    f"{check['max_abs']:.2e}",
                    check["worst_row"],
                    check["verdict"],
                ]
            )
    head = ["encoder", "batch", "against", "cosine", "rel. error", "max. abs", "worst row", "within the limits"]
    return _grid(head, rows)


def _encoders(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    head = ["encoder", "batch", "contender", "device ms", "host ms", "torch / this (host)", "TFLOP/s", "of the ceiling"]
    rows = []
    for found in _ok(record).values():
        for name, one in found["contenders"].items():
            if "error" in one:
                rows.append([found["encoder"], str(found["batch"]), name, one["error"][:160], *["–"] * 4])
                continue
            ratios = ", ".join(f"{other} {value:.2f}" for other, value in one["torch_ratios"].items())
            rows.append(
                [
                    found["encoder"],
                    str(found["batch"]),
                    name,
                    _number(one["device_ms"]),
                    _number(one["host_ms"]),
                    ratios or "–",
                    _number(one["tflops"], 3),
                    "–" if one["of_ceiling"] is None else f"{100 * one['of_ceiling']:.0f} %",
                ]
            )
    return _grid(head, rows)


def _cascade(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            _number(found["tracks_per_minute"]),
            str(found["tracks"]),
            ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in found["decided_by"].items()),
            ", ".join(f"{stage} {value:.3g}" for stage, value in found["stage_ms"].items()),
            ", ".join(f"{count} {status}" for status, count in found["statuses"].items()),
        ]
        for name, found in _ok(record).items()
        if "tracks_per_minute" in found
    ]
    head = ["device, policy, lanes", "tracks/min", "tracks", "decided by", "median ms of a stage", "statuses"]
    return _grid(head, rows)


def _tests(record: dict[str, Any], _: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in _ok(record).items():
        rows.append([name, f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"])
        reasons = list(found["skips"].values())
        rows += [[f"{reasons.count(reason)} skipped", reason] for reason in dict.fromkeys(reasons)]
        rows += [[f"failed: {test}", reason] for test, reason in found["failures"].items()]
    return _grid(["tests", "result"], rows)


_SECTIONS: dict[str, Callable[[dict[str, Any], dict[str, Any]], list[str]]] = {
    "setup": _setup,
    "ceilings": _ceilings,
    "export": _export,
    "build": _build,
    "verify": _verify,
    "encoders": _encoders,
    "cascade": _cascade,
    "tests": _tests,
}
