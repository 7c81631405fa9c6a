"""Minisign's files: what Debian's minisign 0.11 wrote (fixtures), and what is damaged, altered or by another key."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.signer import FIXTURES, OTHER, OURS
from edge_reclass_appliance.errors import NOT_TRUSTED
from edge_reclass_appliance.signatures import SignatureError, minisign

MESSAGE = (FIXTURES / "message.txt").read_bytes()
needs_minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="minisign is not installed")


def fixture_key(name: str = "test.pub") -> minisign.PublicKey:
    return minisign.read_key((FIXTURES / name).read_bytes(), name)


def lines_of(kind: str = "ED") -> list[bytes]:
    return (FIXTURES / f"message.{kind}.minisig").read_bytes().splitlines()


def refused(signature: bytes, message: bytes = MESSAGE, key: minisign.PublicKey | None = None) -> str:
    with pytest.raises(SignatureError) as error:
        minisign.verify(key or fixture_key(), message, signature, name="message.txt")
    assert error.value.code == NOT_TRUSTED
    return str(error.value)


@pytest.mark.parametrize(("kind", "comment"), [("ED", "edge-reclass test"), ("Ed", "edge-reclass test, legacy")])
def test_both_kinds_that_minisign_writes(kind: str, comment: str) -> None:
    signature = (FIXTURES / f"message.{kind}.minisig").read_bytes()
    assert minisign.verify(fixture_key(), MESSAGE, signature, name="message.txt") == comment
    assert minisign.verify(fixture_key(), MESSAGE, signature.replace(b"\n", b"\r\n"), name="message.txt") == comment
    assert "message.txt was changed" in refused(signature, MESSAGE + b" ")
    assert "message.txt was changed" in refused(signature, b"")


def test_the_kind_is_part_of_what_is_checked() -> None:
    """A prehashed signature called legacy, and the other way round, fits nothing."""
    lines = lines_of()
    raw = bytearray(base64.b64decode(lines[1]))
    raw[:2] = b"Ed"
    assert "was changed" in refused(b"\n".join([lines[0], base64.b64encode(raw), *lines[2:]]))
    raw[:2] = b"EX"
    assert "of the kind ED or Ed, got b'EX'" in refused(b"\n".join([lines[0], base64.b64encode(raw), *lines[2:]]))


def test_another_key_is_named() -> None:
    other = fixture_key("other.pub")
    assert other.id != fixture_key().id == "9DE0ED38B09F16C6"
    said = refused((FIXTURES / "message.ED.minisig").read_bytes(), key=other)
    assert said == (
        f"message.txt.minisig: expected a signature by the key {other.id}, got one by the key 9DE0ED38B09F16C6"
    )


def test_a_key_that_took_the_number_of_ours() -> None:
    forged = minisign.PublicKey(fixture_key().number, fixture_key("other.pub").key)
    assert "was changed" in refused((FIXTURES / "message.ED.minisig").read_bytes(), key=forged)


def test_the_trusted_comment_is_signed() -> None:
    lines = lines_of()
    lines[2] = b"trusted comment: edge-reclass test, but newer"
    assert refused(b"\n".join(lines)) == "message.txt.minisig: its trusted comment was changed"
    lines = lines_of()
    lines[3] = lines_of("Ed")[3]
    assert "trusted comment was changed" in refused(b"\n".join(lines))


def test_the_untrusted_comment_is_not() -> None:
    lines = lines_of()
    lines[0] = b"untrusted comment: whatever"
    assert minisign.verify(fixture_key(), MESSAGE, b"\n".join(lines), name="message.txt") == "edge-reclass test"


@pytest.mark.parametrize("end", [0, 1, 40, 140, 200, 270])
def test_a_signature_that_was_cut_off(end: int) -> None:
    assert "message.txt.minisig: " in refused((FIXTURES / "message.ED.minisig").read_bytes()[:end])


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (0, b"comment: x", "expected 'untrusted comment: "),
        (1, b"!!!!", "line 2 is no signature"),
        (1, b"RUTG", "expected 74 bytes, got 3"),
        (3, base64.b64encode(bytes(63)), "expected 64 bytes, got 63"),
        (2, b"trusted comment: \x1b[2J", "characters that cannot be shown"),
        (2, b"trusted comment: \xff\xfe", "characters that cannot be shown"),
        (3, base64.b64encode(bytes(64)) + b"\nmore", "expected the four lines of a minisign signature, got 5"),
    ],
)
def test_a_damaged_signature(number: int, line: bytes, said: str) -> None:
    lines = lines_of()
    lines[number] = line
    assert said in refused(b"\n".join(lines))


def test_a_signature_that_never_ends() -> None:
    assert "expected a minisign signature of four lines, got 20000 bytes" in refused(b"a" * 20000)


def test_a_key_is_read_from_a_file_or_given_as_it_is() -> None:
    text = (FIXTURES / "test.pub").read_text()
    for given in (str(FIXTURES / "test.pub"), text.splitlines()[1], text.splitlines()[1] + "\n"):
        assert minisign.key_of(given) == fixture_key()
    assert minisign.read_key(fixture_key().text, "again") == fixture_key()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected one minisign public key, got 0"),
        ("untrusted comment: x\n", "expected one minisign public key, got 0"),
        ("untrusted comment: x\nRWQ\nRWQ\n", "expected one minisign public key, got 2"),
        ("RWQAAA", "expected a minisign public key"),
        ("RWTGFp+wOO3gnVMgHJdTP4JHQyxna4syCHeyzgjIol+ahChrjlwBYGV", "expected a minisign public key"),
        (base64.b64encode(b"Ex" + bytes(40)).decode(), "expected a key of the kind Ed, got b'Ex'"),
        (base64.b64encode(b"Ed" + bytes(8) + b"\x01" + bytes(31)).decode(), "small order: anybody could sign"),
        ("untrusted comment: minisign encrypted secret key\nRWRTY0Iy", "is a secret key; expected the public one"),
        ("a" * 20000, "a few lines, got 20000 bytes"),
    ],
)
def test_what_is_no_key(text: str, said: str) -> None:
    with pytest.raises(SignatureError) as error:
        minisign.read_key(text, "some.pub")
    assert said in str(error.value)
    assert str(error.value).startswith("some.pub")


def test_a_key_with_a_slash_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "RWRlMs51WM+z/1T4AzbJlBsmdybgSiVM1eotNryTHi5q72X/4c9w+SWy"
    monkeypatch.chdir(tmp_path)
    assert minisign.key_of(given) == fixture_key("other.pub")


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="there is no such file"):
        minisign.key_of(str(tmp_path / "none.pub"))


def test_the_tests_own_signer_writes_what_is_read() -> None:
    key = minisign.read_key(OURS.text, "ours")
    assert key.id == OURS.id
    for kind in (b"ED", b"Ed"):
        assert minisign.verify(key, b"m", OURS.minisig(b"m", "said", kind=kind), name="m") == "said"
    assert "expected a signature by the key" in refused(OTHER.minisig(b"m"), b"m", key)


@needs_minisign
def test_minisign_takes_what_the_tests_sign(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"m")
    (tmp_path / "m.minisig").write_bytes(OURS.minisig(b"m", "said"))
    done = subprocess.run(
        ["minisign", "-V", "-m", tmp_path / "m", "-P", OURS.text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "said" in done.stdout


@needs_minisign
@pytest.mark.parametrize("options", [[], ["-l"]], ids=["prehashed", "legacy"])
def test_what_minisign_signs_now_is_taken(tmp_path: Path, options: list[str]) -> None:
    pair = ["-p", tmp_path / "k.pub", "-s", tmp_path / "k.key"]
    made = subprocess.run(["minisign", "-G", "-W", *pair], capture_output=True, text=True, timeout=60, check=False)
    if made.returncode != 0:
        pytest.skip(f"this minisign makes no key without a password: {made.stderr.strip()}")
    (tmp_path / "m").write_bytes(bytes(range(256)) * 40)
    command = ["minisign", "-S", *options, "-s", tmp_path / "k.key", "-m", tmp_path / "m", "-t", "größer"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    key = minisign.key_of(str(tmp_path / "k.pub"))
    signature = (tmp_path / "m.minisig").read_bytes()
    assert minisign.verify(key, (tmp_path / "m").read_bytes(), signature, name="m") == "größer"
    assert "was changed" in refused(signature, b"another", key)
