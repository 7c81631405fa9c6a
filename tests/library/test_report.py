"""``library report``: the page's figures and rows, that it needs nothing else, and that no name leaves its place."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from command import run
from filled import absent, answer, correct, failure, fill
from synth import music, write

HOSTILE = (
    b"<!--<script>.mp3",
    b"<img src=x onerror=alert(1)>&amp;.mp3",
    b"<script>alert(1)<!--.mp3",
    b"{{data}}\\g<0>$&.mp3",
    b"caf\xe9.mp3",
    "\u202eevil\u2028\x07.mp3".encode(),
)


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def report(state: Path, *options: object) -> str:
    target = state.with_name("report.html")
    done = run("library", "report", state, "-o", target, *options)
    assert done.returncode == 0, done.stderr
    return target.read_text(encoding="utf-8")


def column(data: dict[str, Any], name: str) -> list[str | None]:
    return [None if n < 0 else data[name]["names"][n] for n in data[name]["rows"]]


def numbers(page: str, section: str) -> dict[str, str]:
    """The counts of a table of bars, by what they count."""
    table = page.split(f"<h2>{section}</h2>")[1].split("</table>", maxsplit=1)[0]
    rows = re.findall(r'<tr><th scope="row"><a [^>]*>(.*?)</a></th>.*?</td><td>(.*?)</td><td>(.*?)</td></tr>', table)
    return {html.unescape(name): f"{first} {second}".replace("\xa0", " ") for name, first, second in rows}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    file = fill(
        tmp_path / "my <library>.state",
        [
            answer(folder / "a.flac", {"Pop": 0.95}),
            answer(folder / "b.flac", {"Pop": 0.52, "R&B": 0.4}, stages=("fma", "musicnn")),
            answer(folder / "c.flac", {"R&B": 0.3, "Pop": 0.2}, "unsure", stages=("fma", "musicnn")),
            answer(folder / "d.flac", {"R&B": 0.31}, "unsure", stages=("fma", "musicnn")),
            failure(folder / "e.flac", "corrupt"),
            replace(failure(folder / "f.flac", "silent"), error=None),
            answer(folder / "gone.flac", {"Pop": 1.0}),
        ],
    )
    absent(file, folder / "gone.flac")
    correct(file, folder / "d.flac", "Jazz")
    return file


def test_the_figures_are_those_of_the_state(state: Path) -> None:
    page = report(state)
    assert numbers(page, "Genres") == {"Pop": "2 67 %", "Jazz": "1 33 %"}, "what a person said counts, a guess does not"
    assert numbers(page, "Status") == {"ok": "2 33 %", "unsure": "2 33 %", "corrupt": "1 17 %", "silent": "1 17 %"}
    assert numbers(page, "Deciding stage") == {"fma": "4 (100 %) 1 (25 %)", "musicnn": "3 (75 %) 3 (100 %)"}
    tiles = {what: n for n, what in re.findall(r"<div><dd>(\d+)</dd><dt>(.*?)</dt></div>", page)}
    assert tiles == {
        "tracks": "6",
        "with a genre": "3",
        "unsure": "2",
        "failed": "1",
        "corrected by hand": "1",
        "absent": "1",
    }
    for words in ("0.95 to 1.00: 1 sure, 0 unsure", "0.30 to 0.35: 0 sure, 2 unsure", "0.50 to 0.55: 1 sure, 0 unsure"):
        assert words in page
    assert "<title>my &lt;library&gt;.state: library report</title>" in page


def test_the_table_has_every_track(state: Path) -> None:
    data = Page(report(state)).data
    assert data["name"] == ["a.flac", "b.flac", "c.flac", "d.flac", "e.flac", "f.flac"]
    assert column(data, "genre") == ["Pop", "Pop", "R&B", "Jazz", None, None]
    assert column(data, "status") == ["ok", "ok", "unsure", "unsure", "corrupt", "silent"]
    assert column(data, "stage") == ["fma", "musicnn", "musicnn", "musicnn", None, None]
    assert data["confidence"] == [950, 520, 300, 310, -1, -1]
    assert data["said"] == [0, 0, 0, 1, 0, 0]


def test_artist_and_title_come_from_the_files(tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen", reason="tags need mutagen (extra [tags])")
    path = tmp_path / "a.flac"
    write(path, music(1.0, 44_100), 44_100)
    file = mutagen.File(path)
    file["artist"], file["title"] = "</script>Björk", "Jóga & more"
    file.save()
    state = fill(tmp_path / "s", [answer(path, {"Pop": 0.9}), answer(tmp_path / "b.flac", {"Pop": 0.9})])
    data = Page(report(state)).data
    assert column(data, "artist") == ["</script>Björk", None] and data["title"] == ["Jóga & more", 0]
    assert column(Page(report(state, "--no-tags")).data, "artist") == [None, None]


def test_no_name_gets_out_of_its_place(tmp_path: Path) -> None:
    paths = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in HOSTILE]
    genre = "</script><script>alert(2)</script>\"'&{{title}}"
    verdicts = [answer(path, {genre: 0.9}, stages=('"><b>',)) for path in paths]
    text = report(fill(tmp_path / 'a"><script>.state', verdicts))
    page = Page(text)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not {"img", "b", "iframe", "object"} & {tag for tag, _ in page.elements}
    shown = set(page.data["name"])
    assert {"caf\\udce9.mp3", "\\u202eevil\\u2028\\x07.mp3", "<!--<script>.mp3", "{{data}}\\g<0>$&.mp3"} <= shown
    assert page.data["genre"]["names"] == [genre]
    assert all(
        character.isprintable() or character == "\n" for character in text.replace("\u202f", "").replace("\xa0", "")
    )


def test_the_page_needs_nothing_and_runs_only_its_own_script(state: Path) -> None:
    text = report(state)
    page = Page(text)
    assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text), "no address"
    loads = {
        (tag, name, value) for tag, given in page.elements for name, value in given.items() if name in ("src", "href")
    }
    assert all(value.startswith("#") or value == "data:," for _, _, value in loads if value is not None)
    policy = next(given["content"] for tag, given in page.elements if given.get("http-equiv"))
    assert policy is not None and "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def test_an_empty_state_and_one_without_verdicts(tmp_path: Path) -> None:
    text = report(fill(tmp_path / "s", []))
    assert "none yet" in text and "no track was heard yet" in text and Page(text).data["name"] == []


def test_it_never_overwrites_a_track(state: Path, tmp_path: Path) -> None:
    track = tmp_path / "track.html"
    track.write_bytes(b"fLaC" + bytes(100))
    for target in (track, tmp_path):
        assert run("library", "report", state, "-o", target).returncode == 2, target
    assert track.read_bytes() == b"fLaC" + bytes(100)
    wal = Path(f"{state}-wal")
    assert run("library", "report", state, "-o", wal).returncode == 2, "SQLite's own"
    assert run("library", "report", state, "-o", "-").stdout.startswith("<!DOCTYPE html>")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open the page with")
def test_the_script_searches_filters_sorts_and_pages(tmp_path: Path) -> None:
    folder = tmp_path / "Björk"
    verdicts = [answer(folder / f"{i} <b>&.flac", {"Pop": 0.5 + i / 1000}) for i in range(149)]
    verdicts += [
        answer(folder / "x.flac", {"Rock": 0.2}, "unsure"),
        failure(folder / "y.flac", "corrupt"),
        answer(folder / "z.flac", {"Rock": 0.99}),
        answer(tmp_path / "w.flac", {"Rock": 0.98}),
    ]
    report(fill(tmp_path / "s", verdicts))

    def rows(fragment: str) -> tuple[str, list[list[str]]]:
        address = (tmp_path / "report.html").as_uri() + fragment
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}"]
        command = [str(CHROMIUM), *options, "--virtual-time-budget=3000", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        table = (
            done.stdout.split('<table class="tracks" aria-label="Tracks">')[1].split("</table>")[0].split("<tbody>")[1]
        )
        found = re.search(r'role="status">(.*?)</p>', done.stdout)
        assert found, done.stdout[:500]
        cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("</tr>")[:-1]]
        return found[1], [[html.unescape(re.sub(r"<small>.*", "", cell)) for cell in row] for row in cells]

    said, shown = rows("#sort=confidence")
    assert said == "153 tracks" and len(shown) == 100
    assert shown[:2] == [
        ["x.flac", "", "Rock?", "0.20", "unsure", "fma"],
        ["0 <b>&.flac", "", "Pop", "0.50", "ok", "fma"],
    ]
    said, shown = rows("#q=BJORK%20.flac&genre=Rock")
    assert said == "1 of 153 tracks" and [row[0] for row in shown] == ["z.flac"], "a guess is no genre"
