"""Signed releases: nothing is unpacked or run before its signature was checked.

ed25519.py   one signature, after RFC 8032
minisign.py  keys and signatures as the program minisign writes them
manifest.py  release.json: the files of a release by size and digest
trust.py     the key that this machine trusts, the newest releases that it has seen
release.py   a release's files against its manifest
"""

from __future__ import annotations

from .manifest import MANIFEST, SIGNATURE, Entry, Release
from .minisign import PublicKey, SignatureError
from .release import NOT_CHECKED, Opened, check_file, check_folder, made_release, opened, signed_release
from .trust import Trust

__all__ = [
    "MANIFEST",
    "NOT_CHECKED",
    "SIGNATURE",
    "Entry",
    "Opened",
    "PublicKey",
    "Release",
    "SignatureError",
    "Trust",
    "check_file",
    "check_folder",
    "made_release",
    "opened",
    "signed_release",
]
