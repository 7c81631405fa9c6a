"""What a terminal shows of a record."""

from __future__ import annotations

import msgspec
import pytest

from bench.sample import make_record
from edge_reclass_bench.record import Estimate
from edge_reclass_bench.tables import estimate, null_text, record_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(value=12.345, low=11.0, high=13.0), "12.3 [11.0, 13.0]"),
        (Estimate(value=1234.5), "1234"),
        (Estimate(value=0.0123), "0.012"),
        (Estimate(value=0.0000712), "0.00007"),
        (None, "–"),
    ],
)
def test_estimates_have_as_many_digits_as_they_need(value: Estimate | None, text: str) -> None:
    assert estimate(value) == text


def test_everything_of_a_record_is_shown() -> None:
    record = make_record()
    text = record_text(record)
    for part in (
        "sample (000000000000), policy ladder, on cuda",
        "Sample CPU, 8 cores; Sample GPU",
        "note: auto chose cuda",
        "mert compute (device clock)",
        "cascade, cold",
        "expected ",
        "replayed verdicts equal to the measured: 12 of 12",
        "on the same tracks (12 labelled)",
        "offline: tracks per minute",
        "cold-start",
        "orders of the stages",
        "ratio 0.73",
        "absent: build: no TensorRT is installed",
        "warning: ",
    ):
        assert part in text, part
    assert all(len(line) < 220 for line in text.splitlines())


def test_parts_stand_in_the_order_of_the_way() -> None:
    lines = [line.split("  ")[0] for line in record_text(make_record()).splitlines()]
    shown = [line for line in lines if line.startswith("mert ")]
    expected = ["resample", "fill", "run", "copy_in (device clock)", "compute (device clock)"]
    expected += ["copy_out (device clock)", "head", "policy", "total"]
    assert shown[1:10] == [f"mert {part}" for part in expected]


def test_a_percentile_without_support_is_a_dash() -> None:
    record = make_record(passes=2)  # 24 samples: a median, no p90
    line = next(line for line in record_text(record).splitlines() if line.startswith("fma features"))
    assert line.split()[-4:-1] == ["–", "–", "–"]


def test_what_is_not_there_has_no_section() -> None:
    record = msgspec.structs.replace(make_record(), measures=[], runs=[], accounting=None, orders=[], absent=[])
    text = record_text(record)
    for part in ("stage:", "offline", "orders", "absent", "runs"):
        assert part not in text
    assert "null" in null_text([])
