"""Ed25519 signatures are checked here, after RFC 8032 (5.1.7); nothing is signed and no secret is ever at hand.

All of this works on public data, so that it need not take the same time for every input. Where RFC 8032 leaves a
choice, it is the one of libsodium, and so of minisign: the equation without the cofactor, R compared as it is encoded,
and neither a key nor an R of small order, with which one signature would fit any message.
"""

from __future__ import annotations

import hashlib

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)

# A point in extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z.
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is the one of ``message`` by the owner of the public ``key`` (32 bytes).

    Raises:
        ValueError: the key or the signature has another length, or the key is no point, or one of small order.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError(f"expected a signature of {SIGNATURE_BYTES} bytes, got {len(signature)}")
    owner = public_point(key)
    commitment, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= _L:  # a second signature for the same message would be s + L
        return False
    point = _decode(commitment)
    if point is None or _small_order(point):
        return False
    challenge = int.from_bytes(hashlib.sha512(commitment + key + message).digest(), "little") % _L
    x, y, z, t = owner
    return _encode(_sum_of_multiples(s, _BASE, challenge, (-x % _P, y, z, -t % _P))) == commitment


def public_point(key: bytes) -> _Point:
    """The point that a public key stands for.

    Raises:
        ValueError: it is none, or one of small order, or the key has another length.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"expected a public key of {KEY_BYTES} bytes, got {len(key)}")
    point = _decode(key)
    if point is None:
        raise ValueError("the public key is no point of the curve")
    if _small_order(point):
        raise ValueError("the public key is a point of small order: anybody could sign for it")
    return point


def _decode(data: bytes) -> _Point | None:
    """RFC 8032, 5.1.3; None where ``data`` is no point, or not encoded as the RFC says."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * v**3 * pow(u * v**7, (_P - 5) // 8, _P) % _P
    if (v * x * x + u) % _P == 0:
        x = x * _SQRT_MINUS_1 % _P
    if (v * x * x - u) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")


def _small_order(point: _Point) -> bool:
    for _ in range(3):
        point = _add(point, point)
    x, y, z, _ = point
    return x % _P == 0 and (y - z) % _P == 0


def _add(one: _Point, other: _Point) -> _Point:
    """RFC 8032, 5.1.4; complete, so that it doubles as well."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a, b = (y1 - x1) * (y2 - x2) % _P, (y1 + x1) * (y2 + x2) % _P
    c, d = 2 * t1 * t2 * _D % _P, 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _sum_of_multiples(a: int, one: _Point, b: int, other: _Point) -> _Point:
    both = _add(one, other)
    total = _NEUTRAL
    for bit in reversed(range(max(a.bit_length(), b.bit_length()))):
        total = _add(total, total)
        picked = (a >> bit & 1, b >> bit & 1)
        if picked == (1, 1):
            total = _add(total, both)
        elif picked == (1, 0):
            total = _add(total, one)
        elif picked == (0, 1):
            total = _add(total, other)
    return total


def _base() -> _Point:
    point = _decode((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    if point is None:
        raise ArithmeticError("4/5 is no point of the curve")
    return point


_BASE = _base()
