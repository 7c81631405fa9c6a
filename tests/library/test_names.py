"""Names: what every file system takes, from whatever tags say."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_reclass.errors import UsageError
from edge_reclass.library import names
from edge_reclass.library.organise.template import DEFAULT, Template


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AC/DC", "AC_DC"),
        ('a<b>c:d"e\\f|g?h*i', "a_b_c_d_e_f_g_h_i"),
        ("..", ""),
        (".", ""),
        ("../../etc", "_._.._etc"),
        ("...And You Will Know Us", "_..And You Will Know Us"),
        ("R.E.M.", "R.E.M"),
        ("  two   blanks . ", "two blanks"),
        ("line\nbreak\ttab", "line break tab"),
        ("a\x00b\x1b[2Jc", "a_b_[2Jc"),
        ("gpj.\u202eexe", "gpj._exe"),
        ("caf\udce9", "caf_"),
        ("Bjo\u0308rk", "Björk"),
        ("con", "con_"),
        ("COM1.live", "COM1_.live"),
        ("LPT² x", "LPT² x"),
        ("nul .x", "nul_ .x"),
        ("Contra", "Contra"),
        ("👩\u200d🎤", "👩\u200d🎤"),
        ("   ", ""),
    ],
)
def test_components(text: str, expected: str) -> None:
    assert names.component(text) == expected


def test_long_names_are_cut_before_a_character() -> None:
    assert names.component("é" * 200, ".mp3") == "é" * 125 + ".mp3"
    assert names.component("x" * 254 + "é") == "x" * 254
    base = "y" * 253
    assert names.component(base + "q\u0308\u0301") == base, "an accent does not stay behind, nor its letter alone"
    family = "👩\u200d👩\u200d👧"
    assert names.component("z" * 250 + family) == "z" * 250
    assert names.component("w" * 252 + " . .xyz") == "w" * 252


@given(st.text(), st.sampled_from(["", ".mp3", " (12).flac"]))
def test_no_text_makes_a_name_that_harms(text: str, suffix: str) -> None:
    name = names.component(text, suffix)
    if not name:
        return
    assert len(name.encode()) <= names.MAX_BYTES
    assert not set(name) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)
    assert name[0] not in ". " and name[-1] not in ". "
    assert names.component(name.removesuffix(suffix), suffix) == name, "what is in place stays in place"


def path(template: str, **values: str) -> str:
    return Template(template).path({"name": "file", "ext": "mp3", **values})


def test_the_default_template() -> None:
    tags = {"artist": "AC/DC", "album": "Back in Black", "track": "06", "title": "You Shook Me"}
    assert path(DEFAULT, genre="Rock", **tags) == "Rock/AC_DC/Back in Black/06 You Shook Me.mp3"
    assert path(DEFAULT, genre="Rock", title="A") == "Rock/Unknown Artist/Unknown Album/A.mp3"
    assert path(DEFAULT, genre="Rock", track="06") == "Rock/Unknown Artist/Unknown Album/file.mp3"
    hostile = {"genre": "..", "artist": "../..", "album": "/etc", "title": "..", "track": ".."}
    assert path(DEFAULT, **hostile) == "_/_._/_etc/file.mp3"
    assert path("{artist} - {title}.{ext}", title="T", artist=" ") == "Unknown Artist - T.mp3"
    assert path("{track} - {title}.{ext}", title="T") == "T.mp3"
    assert path("{title} ({track}).{ext}", title="T") == "T.mp3"
    assert path("x{{y}}/{name}.{ext}") == "x{y}/file.mp3"
    assert Template("{name}.{ext}").path({"name": "a", "ext": ""}) == "a"
    assert Template("{name}.{ext}").path({"name": "...", "ext": "mp3"}) == "_.mp3"


@given(st.dictionaries(st.sampled_from(["genre", "artist", "album", "title", "track"]), st.text()))
def test_no_tag_leads_out(values: dict[str, str]) -> None:
    parts = path(DEFAULT, **values).split("/")
    assert len(parts) == 4
    assert all(part and part[0] != "." and part != ".." for part in parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{genre}/{title}", "to end with .{ext}"),
        ("{gender}/{title}.{ext}", "got 'gender'"),
        ("{genre.__class__}/{title}.{ext}", "got 'genre.__class__'"),
        ("{track:02}.{ext}", "neither a format nor a conversion"),
        ("{title!r}.{ext}", "neither a format nor a conversion"),
        ("/{genre}/{title}.{ext}", "expected names between slashes, got ''"),
        ("../{title}.{ext}", "expected names between slashes, got '..'"),
        ("{genre}//{title}.{ext}", "expected names between slashes"),
        ("{genre/{title}.{ext}", "a brace itself is written {{ or }}"),
        (".{ext}", "expected names between slashes"),
    ],
)
def test_templates_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(text)
    assert message in str(caught.value)
