"""Minisign's public keys and signatures: https://jedisct1.github.io/minisign/#signature-format.

A signature file has four lines: a comment that nobody vouches for, the signature of the message, a comment that the
signer vouches for, and the signature of that comment together with the first signature. ``ED`` signs the message's
BLAKE2b-512, ``Ed`` (older) the message itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance.errors import NOT_TRUSTED, ApplianceError

from . import ed25519

MOST_BYTES = 16 * 1024
"""No key and no signature file is longer: minisign's comments have at most 1 and 8 KiB."""

_UNTRUSTED = b"untrusted comment: "
_TRUSTED = b"trusted comment: "
_KEY = re.compile(r"RW[A-Za-z0-9+/]{54}")


class SignatureError(ApplianceError):
    """A key or a signature cannot be used, or the signature is not the message's; the message says which."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message, fix, NOT_TRUSTED)


@dataclass(frozen=True)
class PublicKey:
    """A public key, and the number by which signatures name it."""

    number: bytes
    """8 bytes, little endian."""
    key: bytes

    @property
    def id(self) -> str:
        """As minisign shows it, such as ``E7620F1842B4E81F``."""
        return _shown(self.number)

    @property
    def text(self) -> str:
        """The file that minisign reads."""
        encoded = base64.b64encode(b"Ed" + self.number + self.key).decode()
        return f"untrusted comment: minisign public key {self.id}\n{encoded}\n"


def read_key(text: str | bytes, name: str) -> PublicKey:
    """The key in a minisign public key file, or in its second line alone; ``name`` stands in the errors.

    Raises:
        SignatureError: it is none.
    """
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if len(data) > MOST_BYTES:
        raise SignatureError(f"{name}: expected a minisign public key of a few lines, got {len(data)} bytes")
    if data.startswith(b"untrusted comment: minisign encrypted secret key"):
        raise SignatureError(f"{name} is a secret key; expected the public one: keep the secret key on no device")
    lines = data.partition(b"\n")[2].split() if data.startswith(_UNTRUSTED) else data.split()
    if len(lines) != 1:
        raise SignatureError(f"{name}: expected one minisign public key, got {len(lines)} lines or words")
    decoded = _decoded(lines[0], 42, f"{name}: expected a minisign public key (56 characters starting with RW)")
    if decoded[:2] != b"Ed":
        raise SignatureError(f"{name}: expected a key of the kind Ed, got {decoded[:2]!r}")
    try:
        ed25519.public_point(decoded[10:])
    except ValueError as error:
        raise SignatureError(f"{name}: {error}") from None
    return PublicKey(decoded[2:10], decoded[10:])


def key_of(given: str) -> PublicKey:
    """The key that an option names: a public key file, or the key itself as base64.

    Raises:
        SignatureError: it is neither.
    """
    if _KEY.fullmatch(given):  # before it is taken as a path: half of all keys have a slash
        return read_key(given, f"--key {given}")
    file = Path(given)
    try:
        if file.is_file():
            with file.open("rb") as stream:
                return read_key(stream.read(MOST_BYTES + 1), given)
    except OSError as error:
        raise SignatureError(f"{given}: cannot be read: {error.strerror}") from None
    if "/" in given or given.endswith(".pub"):
        raise SignatureError(f"{given}: there is no such file")
    return read_key(given, f"--key {given}")


def verify(key: PublicKey, message: bytes, signature: bytes, *, name: str) -> str:
    """Check a signature file's bytes against a message; gives the trusted comment.

    ``name`` is the message's, for the errors.

    Raises:
        SignatureError: the signature is damaged, by another key, or not this message's.
    """
    beside = f"{name}.minisig"
    kind, number, signed, comment, signed_comment = _parsed(signature, beside)
    if number != key.number:
        raise SignatureError(f"{beside}: expected a signature by the key {key.id}, got one by the key {_shown(number)}")
    hashed = hashlib.blake2b(message).digest() if kind == b"ED" else message
    if not ed25519.verify(key.key, hashed, signed):
        raise SignatureError(f"{name} was changed, or {beside} is another file's: the signature does not fit")
    if not ed25519.verify(key.key, signed + comment, signed_comment):
        raise SignatureError(f"{beside}: its trusted comment was changed")
    return comment.decode("utf-8")


def _parsed(signature: bytes, name: str) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    if len(signature) > MOST_BYTES:
        raise SignatureError(f"{name}: expected a minisign signature of four lines, got {len(signature)} bytes")
    lines = [line.removesuffix(b"\r") for line in signature.removesuffix(b"\n").split(b"\n")]
    if len(lines) != 4:
        raise SignatureError(f"{name}: expected the four lines of a minisign signature, got {len(lines)}")
    if not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise SignatureError(f"{name}: expected 'untrusted comment: …' and 'trusted comment: …' in lines 1 and 3")
    first = _decoded(lines[1], 74, f"{name}: line 2 is no signature")
    second = _decoded(lines[3], 64, f"{name}: line 4 is no signature")
    comment = lines[2].removeprefix(_TRUSTED)
    try:
        printable = comment.decode("utf-8").replace("\t", " ").isprintable()
    except UnicodeDecodeError:
        printable = False
    if not printable:
        raise SignatureError(f"{name}: the trusted comment has characters that cannot be shown")
    if first[:2] not in (b"ED", b"Ed"):
        raise SignatureError(f"{name}: expected a signature of the kind ED or Ed, got {first[:2]!r}")
    return first[:2], first[2:10], first[10:], comment, second


def _decoded(line: bytes, size: int, wrong: str) -> bytes:
    try:
        decoded = base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise SignatureError(f"{wrong}: {error}") from None
    if len(decoded) != size:
        raise SignatureError(f"{wrong}: expected {size} bytes, got {len(decoded)}")
    return decoded


def _shown(number: bytes) -> str:
    return number[::-1].hex().upper()
