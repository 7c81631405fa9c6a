"""Signs as minisign does, with keys that are public: those of RFC 8032's test vectors. For tests only."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from edge_reclass_appliance.signatures import MANIFEST, SIGNATURE, ed25519, made_release

FIXTURES = Path(__file__).with_name("fixtures")
VECTORS = json.loads((FIXTURES / "rfc8032.json").read_text(encoding="ascii"))


def sign(secret: bytes, message: bytes) -> bytes:
    """RFC 8032, 5.1.6."""
    digest = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254
    public = times_base(scalar)
    nonce = int.from_bytes(hashlib.sha512(digest[32:] + message).digest(), "little") % ed25519._L
    commitment = times_base(nonce)
    challenge = int.from_bytes(hashlib.sha512(commitment + public + message).digest(), "little")
    return commitment + ((nonce + challenge * scalar) % ed25519._L).to_bytes(32, "little")


def times_base(scalar: int) -> bytes:
    return ed25519._encode(ed25519._sum_of_multiples(scalar, ed25519._BASE, 0, ed25519._BASE))


@dataclass(frozen=True)
class Signer:
    """One of the RFC's keys, under a number as minisign gives one."""

    secret: bytes
    public: bytes
    number: bytes

    @property
    def text(self) -> str:
        """Its public key, in one word."""
        return base64.b64encode(b"Ed" + self.number + self.public).decode()

    @property
    def id(self) -> str:
        return self.number[::-1].hex().upper()

    def minisig(self, message: bytes, comment: str = "a test", *, kind: bytes = b"ED") -> bytes:
        """The bytes of a signature file."""
        signed = sign(self.secret, hashlib.blake2b(message).digest() if kind == b"ED" else message)
        both = sign(self.secret, signed + comment.encode())
        lines = (
            "untrusted comment: made by a test",
            base64.b64encode(kind + self.number + signed).decode(),
            f"trusted comment: {comment}",
            base64.b64encode(both).decode(),
        )
        return ("\n".join(lines) + "\n").encode()

    def release(self, folder: Path, *, name: str = "edge-reclass", version: str = "1.0", sequence: int = 10) -> None:
        """Make a folder a signed release."""
        manifest = made_release(folder, name, version, sequence).to_bytes()
        (folder / MANIFEST).write_bytes(manifest)
        (folder / SIGNATURE).write_bytes(self.minisig(manifest))


OURS, OTHER = (
    Signer(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["public"]), number)
    for vector, number in zip(VECTORS, (b"\x01\x02\x03\x04\x05\x06\x07\x08", b"\xaa" * 8), strict=False)
)
