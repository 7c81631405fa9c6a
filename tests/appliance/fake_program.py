"""Stands for the installed ``edge-reclass`` in tests of the appliance: the same commands, options, answers, exit codes.
Manifests are written as JSON, which is YAML too, so that it starts at once.

``FAKE_FAIL`` makes one command fail: ``verify`` (a mismatch), ``build``, ``classify``, ``verify-killed`` (the whole
provisioning is killed meanwhile). ``FAKE_NODE`` is a device node that ``classify`` opens, as a driver does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

ROOT = Path(os.environ["FAKE_ROOT"])
FAIL = os.environ.get("FAKE_FAIL", "")


def main() -> int:
    with Path(os.environ["FAKE_CALLS"]).open("a") as log:
        print(*sys.argv[1:], file=log)
    if sys.argv[1:] == ["--version"]:
        print("edge-reclass 0.1.0")
        return 0
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect")
    build = commands.add_parser("build")
    verify = commands.add_parser("verify")
    classify = commands.add_parser("classify")
    for command in (inspect, build, verify):
        command.add_argument("bundle", type=Path)
    for command in (inspect, build, classify):
        command.add_argument("--format", required=True)
    for command in (build, verify, classify):
        command.add_argument("--engines", type=Path)
    for command in (verify, classify):
        command.add_argument("--device", required=True)
    build.add_argument("--max-batch", type=int, required=True)
    build.add_argument("--workspace", type=int)
    build.add_argument("--rebuild", action="store_true")
    build.add_argument("--dry-run", action="store_true")
    verify.add_argument("--stage", action="append")
    classify.add_argument("path", type=Path)
    classify.add_argument("--bundle", type=Path)
    classify.add_argument("--workers", type=int)
    classify.add_argument("--state", type=Path)
    classify.add_argument("--progress")
    given = parser.parse_args()
    if given.command == FAIL:
        print(f"error: {given.command} failed, as the test wanted", os.environ.get("FAKE_SAYS", ""), file=sys.stderr)
        return 4
    return {"inspect": show, "build": compile_, "verify": compare, "classify": answer}[given.command](given)


def load(folder: Path) -> tuple[dict, str]:
    text = (folder / "bundle.yaml").read_bytes()
    manifest = json.loads(text)
    for name, digest in manifest["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            print(f"error: {folder / name}: expected sha256 {digest}, got another", file=sys.stderr)
            sys.exit(4)
    return manifest, hashlib.sha256(text).hexdigest()


def show(given: argparse.Namespace) -> int:
    manifest, digest = load(given.bundle)
    print(json.dumps({"digest": digest, **manifest}))
    return 0


def engine(given: argparse.Namespace) -> Path:
    """Its key, as the real one's: the graph, L4T, TensorRT and the profile."""
    release = (ROOT / "etc/nv_tegra_release").read_text()
    tensorrt = (ROOT / "usr/lib/python3/dist-packages/tensorrt.py").read_text()
    graph = (given.bundle / "encoders/one.onnx").read_text()
    return given.engines / hashlib.sha256(repr((release, tensorrt, graph, given.max_batch)).encode()).hexdigest()[:16]


def compile_(given: argparse.Namespace) -> int:
    load(given.bundle)
    folder = engine(given)
    there = folder.is_dir() and not given.rebuild
    if not given.dry_run and not there:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "engine.plan").write_text("native code")
    action = "keep" if there else "build"
    print(json.dumps([{"stage": "one", "action": action, "done": not given.dry_run}]))
    return 0


def compare(given: argparse.Namespace) -> int:
    load(given.bundle)
    if FAIL == "verify-killed":
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def answer(given: argparse.Namespace) -> int:
    load(given.bundle)
    if not given.path.is_file():
        return 2
    given.state.write_text("a state")
    if node := os.environ.get("FAKE_NODE"):
        os.close(os.open(node, os.O_RDWR))
    print(json.dumps([{"status": "ok", "genre": "Rock", "confidence": 0.9, "decided_by": "one"}]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
