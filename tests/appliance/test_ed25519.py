"""One signature after RFC 8032: its vectors, and everything that must not pass."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.signer import OURS, VECTORS, sign
from edge_reclass_appliance.signatures import ed25519

P = 2**255 - 19
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))


def parts(vector: Any) -> tuple[bytes, bytes, bytes]:
    return bytes.fromhex(vector["public"]), bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])


def y_only(y: int, sign_bit: int = 0) -> bytes:
    return (y | sign_bit << 255).to_bytes(32, "little")


# The points of order 1, 2 and 4.
SMALL = [y_only(1), y_only(P - 1), y_only(0), y_only(0, 1)]


@each_vector
def test_the_vectors_of_the_rfc(vector: Any) -> None:
    key, message, signature = parts(vector)
    assert ed25519.verify(key, message, signature)
    assert not ed25519.verify(key, message + b"\0", signature)


@each_vector
def test_the_tests_own_signer_signs_as_the_rfc(vector: Any) -> None:
    assert sign(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["message"])).hex() == vector["signature"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 511))
def test_no_bit_may_change(bit: int) -> None:
    key, message, signature = parts(VECTORS[2])
    altered = bytearray(signature)
    altered[bit // 8] ^= 1 << bit % 8
    assert not ed25519.verify(key, message, bytes(altered))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 255))
def test_no_bit_of_the_key_may_change(bit: int) -> None:
    key, message, signature = parts(VECTORS[2])
    altered = bytearray(key)
    altered[bit // 8] ^= 1 << bit % 8
    try:
        assert not ed25519.verify(bytes(altered), message, signature)
    except ValueError as error:
        assert "public key" in str(error)


def test_s_beyond_the_order_is_no_second_signature() -> None:
    key, message, signature = parts(VECTORS[1])
    s = int.from_bytes(signature[32:], "little")
    for more in (s + ed25519._L, s + 2 * ed25519._L, ed25519._L):
        assert not ed25519.verify(key, message, signature[:32] + more.to_bytes(32, "little"))


def eighth() -> bytes:
    """A point of order 8: a random point times the order of the base point."""
    for y in range(2, 100):
        point = ed25519._decode(y_only(y))
        if point is not None:
            torsion = ed25519._encode(ed25519._sum_of_multiples(ed25519._L, point, 0, point))
            doubled = ed25519._add(*(ed25519._decode(torsion),) * 2)  # type: ignore[arg-type]
            if ed25519._encode(ed25519._add(doubled, doubled)) == y_only(P - 1):
                return torsion
    raise AssertionError("no point of order 8")


@pytest.mark.parametrize("key", [*SMALL, eighth()], ids=["1", "2", "4", "4-", "8"])
def test_a_key_that_fits_any_message_is_refused(key: bytes) -> None:
    """With S = 0 and R = -[k]A the equation holds, whatever is signed."""
    with pytest.raises(ValueError, match="small order: anybody could sign"):
        ed25519.verify(key, b"whatever", y_only(1) + bytes(32))


@pytest.mark.parametrize("commitment", [*SMALL, eighth()], ids=["1", "2", "4", "4-", "8"])
def test_an_r_of_small_order_is_refused(commitment: bytes) -> None:
    """The owner of a key can make such a signature; minisign refuses it too."""
    assert not ed25519.verify(OURS.public, b"whatever", commitment + bytes(32))


@pytest.mark.parametrize(
    "key", [y_only(P), y_only(P + 1), y_only(2**255 - 1), y_only(1, 1), y_only(P - 1, 1), y_only(2)],
    ids=["p", "p+1", "most", "-0 at 1", "-0 at -1", "no point"],
)  # fmt: skip
def test_what_is_no_point_or_another_writing_of_one_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="no point of the curve"):
        ed25519.public_point(key)
    assert not ed25519.verify(OURS.public, b"whatever", key + bytes(32))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_length(size: int) -> None:
    with pytest.raises(ValueError, match=f"expected a public key of 32 bytes, got {size}"):
        ed25519.verify(bytes(size), b"", bytes(64))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_length(size: int) -> None:
    with pytest.raises(ValueError, match=f"expected a signature of 64 bytes, got {size}"):
        ed25519.verify(OURS.public, b"", bytes(size))
