"""The record of answers: what is written is read, what does not fit is refused, and what it says of costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_reclass.errors import UsageError
from edge_reclass_learn.answers import Answers, Costs, StageFacts, checked, load, narrowed, save
from learn_answers import GENRES, heard, random_answers, record, said, sure, track


def test_what_is_written_is_read(tmp_path: Path) -> None:
    answers = random_answers(20, {"a": 1, "b": 4}, hostile=True)
    save(answers, tmp_path / "answers.json")
    assert load(tmp_path / "answers.json") == answers
    assert [path.name for path in tmp_path.iterdir()] == ["answers.json"]


def edited(tmp_path: Path, edit: Any) -> Path:
    path = tmp_path / "answers.json"
    save(random_answers(3, {"a": 1}), path)
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.update(format=2), "format: expected 1, got 2"),
        (lambda p: p.pop("format"), "format: expected 1, got None"),
        (lambda p: p.update(kind="edge-reclass-bench"), "expected a record of answers"),
        (lambda p: p.update(more=1), "unknown field `more`"),
        (lambda p: p["tracks"][0].update(decode=-1.0), "decode"),
        (lambda p: p["tracks"][0].update(label="Polka"), "expected a label of G0, G1, G2, got 'Polka'"),
        (lambda p: p["tracks"][1].update(name="t0"), "'t0' stands there 2 times"),
        (lambda p: p["tracks"][0].update(stages={}), "expected the stages a, got"),
        (lambda p: p["tracks"][0]["stages"]["a"]["said"][0].update(windows=2), r"after some of \[1, 3\] windows"),
        (lambda p: p["tracks"][0]["stages"]["a"]["said"][2].update(windows=11), "expected 3 to 10 windows heard"),
        (lambda p: p["tracks"][0]["stages"]["a"]["said"][1].update(probabilities=[1.0]), "expected 3 probabilities"),
        (lambda p: p["tracks"][0]["stages"]["a"]["said"][1].update(probabilities=[0.5, 0.1, 0.1]), "a sum of 0.7"),
        (lambda p: p["tracks"][0]["stages"]["a"]["said"][1].update(probabilities=None), "expected probabilities after"),
        (lambda p: p["tracks"][0]["stages"]["a"].update(said=[]), "length >= 1"),
        (lambda p: p["stages"][0].update(needs=["b"]), r"expected other stages of a, got \['b'\]"),
        (lambda p: p["stages"][0].update(needs=["a"]), r"expected other stages of a, got \['a'\]"),
        (lambda p: p["stages"][0].update(windows=[3, 1]), "expected ascending counts"),
    ],
)
def test_what_does_not_fit_is_refused_by_file_and_key(tmp_path: Path, edit: Any, message: str) -> None:
    path = edited(tmp_path, edit)
    with pytest.raises(UsageError, match=message) as refused:
        load(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"kind": "edge-reclass-answers"}']
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "absent.json")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


def test_an_invalid_record_is_not_written(tmp_path: Path) -> None:
    circle = [StageFacts(name="a", signal="s", needs=["b"]), StageFacts(name="b", signal="s", needs=["a"])]
    parts = {name: heard(said(10, sure(0, 0.9))) for name in "ab"}
    with pytest.raises(UsageError, match="needs go in a circle"):
        save(record(circle, [track(0, parts)]), tmp_path / "answers.json")
    silent = {"a": heard(said(0, None))}
    with pytest.raises(UsageError, match="no stage heard anything"):
        save(record([StageFacts(name="a", signal="s")], [track(0, silent)]), tmp_path / "answers.json")
    assert not list(tmp_path.iterdir())


def windowed() -> Answers:
    """Stage a hears 1, then 3, then all of 10 windows; b the excerpt at once; both at one rate."""
    facts = [StageFacts(name="a", signal="16k", windows=[1, 3]), StageFacts(name="b", signal="16k", whole=True)]
    p = sure(0, 0.5)
    tracks = []
    for i, slow in enumerate([1.0, 1.0, 50.0]):  # the machine was busy during the third
        a = heard(said(1, p, 2.0 * slow), said(3, p, 4.0 * slow), said(10, p, 7.0 * slow), resample=5.0)
        tracks.append(track(i, {"a": a, "b": heard(said(1, p, 15.0 * slow), of=1)}))
    short = heard(said(1, p, 9.0), of=1, resample=1.0)  # one window: the last answer at once
    tracks.append(track(3, {"a": short, "b": heard(said(1, p, 15.0), of=1)}))
    return record(facts, tracks, genres=GENRES)


def test_a_window_costs_the_median_and_decoding_is_each_tracks_own() -> None:
    costs = Costs.measured(windowed())
    assert costs.decode.tolist() == [2.0] * 4
    assert costs.resample["16k"].tolist() == [5.0, 5.0, 5.0, 1.0]
    a = costs.until["a"]
    assert a[1].tolist()[:3] == [2.0] * 3
    assert a[3].tolist()[:3] == [2.0 + 2 * 2.0] * 3
    # Per window of the last step: 1, 1, 50 and 9 (the short track's only one): the median is 5.
    assert a[None].tolist() == [6.0 + 7 * 5.0] * 3 + [5.0]
    assert costs.until["b"][None].tolist() == [15.0] * 4


def test_fewer_windows_are_as_if_no_more_had_been_asked_for() -> None:
    answers = random_answers(30, {"a": 1, "b": 4}, windows=(1, 2, 5), hostile=True)
    fewer = checked(narrowed(answers, {"a": [2], "b": []}))
    assert [facts.windows for facts in fewer.stages] == [[2], []]
    for before, after in zip(answers.tracks, fewer.tracks, strict=True):
        for name in "ab":
            old, new = before.stages[name].said, after.stages[name].said
            assert new[-1].probabilities == old[-1].probabilities
            assert sum(said.cost for said in new) == pytest.approx(sum(said.cost for said in old))
            assert {said.windows for said in new[:-1]} <= ({2} if name == "a" else set())
