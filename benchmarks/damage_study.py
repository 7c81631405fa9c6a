"""How much damage a track survives: mutate clean files, decode them, and compare with tolerant FFmpeg.

    python benchmarks/damage_study.py FOLDER                 # decoder only
    python benchmarks/damage_study.py FOLDER --classify      # the cascade's genre against that of the clean file, too

Each clean file of FOLDER (the first --files of them by name, --seconds from its middle) is written in six formats;
each of these is damaged in four ways, --seeds times each: bits flipped, a hole of zeros, cut off, a tag spliced in.
Each file's mutations run in a process of their own, so that a crash or a hang is counted and does not end the study.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edge_reclass.audio import AUDIO_SUFFIXES, Decoder, ExcerptSpec
from edge_reclass.errors import TrackError

FORMATS = ("mp3", "flac", "wav", "ogg", "opus", "m4a")
KINDS = ("flips", "hole", "cut", "tag")
TIMEOUT_SECONDS = 120.0
SPEC = ExcerptSpec("center", 10.0)


def main() -> int:
    """Run the study, or one file's part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of clean audio files")
    parser.add_argument("--files", type=int, default=10, help="clean files to take [default: 10]")
    parser.add_argument("--seeds", type=int, default=10, help="mutations of each kind [default: 10]")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a clean file [default: 12]")
    parser.add_argument("--classify", action="store_true", help="classify with the starter bundle, too")
    parser.add_argument("--jsonl", type=Path, help="write every result here")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        for result in study(options.folder, options.seeds, classify=options.classify):
            print(json.dumps(result), flush=True)
        return 0
    results = list(run(options))
    if options.jsonl:
        options.jsonl.write_text("".join(json.dumps(result) + "\n" for result in results))
    report(results, classify=options.classify)
    return 0


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All results, each clean file's in a process of its own."""
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    with tempfile.TemporaryDirectory() as temporary:
        for number, path in enumerate(paths[: options.files]):
            for clean in encode(path, Path(temporary), f"{number:02}", options.seconds):
                command = [sys.executable, __file__, "--one", "--seeds", str(options.seeds), str(clean)]
                yield from guarded(command + ["--classify"] * options.classify, clean.name)
                print(f"\r{path.name} {clean.suffix}   ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)


def guarded(command: list[str], name: str) -> Iterator[dict[str, Any]]:
    """The results that a process prints; one more where it crashes or hangs."""
    error = ""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_SECONDS * 5)
        output = done.stdout
        if done.returncode:
            error = f"exit {done.returncode}: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout.decode() if isinstance(expired.stdout, bytes) else expired.stdout or ""
        error = "hang"
    lines = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
    yield from lines
    if error:
        after = "after " + str(lines[-1] if lines else "nothing")
        yield {"file": name, "kind": after, "status": "CRASH", "error": error}


def encode(path: Path, folder: Path, stem: str, seconds: float) -> Iterator[Path]:
    """The middle of a file in every format; m4a by PyAV, the others by soundfile."""
    out = np.empty(round(seconds * 192_000) + 100, np.float32)
    decoded = Decoder().decode(path, [ExcerptSpec("center", seconds)], out)
    samples = decoded.segments[0].samples
    for name in FORMATS:
        target = folder / f"{stem}.{name}"
        if name == "m4a":
            encode_m4a(target, samples, decoded.rate)
        else:
            rate = 48_000 if name == "opus" else decoded.rate
            format_, subtype = {
                "mp3": ("MP3", "MPEG_LAYER_III"), "flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"),
                "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
            }[name]  # fmt: skip
            with soundfile.SoundFile(target, "w", rate, 1, subtype, format=format_) as file:
                for begin in range(0, len(samples), 65_536):
                    file.write(samples[begin : begin + 65_536])
        yield target


def encode_m4a(target: Path, samples: Any, rate: int) -> None:
    """AAC in mp4, its index in front."""
    import av

    with av.open(str(target), "w", format="ipod", options={"movflags": "faststart"}) as output:
        stream: Any = output.add_stream("aac", rate=rate, layout="mono", format="fltp", bit_rate=96_000)
        for begin in range(0, len(samples) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, begin
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def mutate(data: bytes, kind: str, seed: int) -> tuple[bytes, float]:
    """Damaged data, and the share of its bytes that is damaged."""
    random_ = random.Random(f"{kind}{seed}")
    body = bytearray(data)
    size = len(body)
    head = min(4096, size // 4)  # what stands in front is another matter: headers and indexes
    if kind == "flips":
        count = round(10 ** random_.uniform(0, 3.3))
        for _ in range(count):
            body[random_.randrange(head, size)] ^= 1 << random_.randrange(8)
        return bytes(body), count / size
    if kind == "hole":
        length = min(size // 2, round(10 ** random_.uniform(2, 4.8)))
        at = random_.randrange(head, size - length)
        body[at : at + length] = bytes(length)
        return bytes(body), length / size
    if kind == "cut":
        keep = random_.uniform(0.1, 0.99)
        return bytes(body[: round(size * keep)]), 1 - keep
    tag = tags(random_)
    at = random_.choice([0, size, random_.randrange(head, size)])
    return bytes(body[:at] + tag + body[at:]), 0.0


def tags(random_: random.Random) -> bytes:
    """A tag of some kind with a few kilobytes of what looks like a picture."""
    picture = random_.randbytes(round(10 ** random_.uniform(2, 5)))
    kind = random_.choice(["id3v2", "ape", "id3v1"])
    size = len(picture)
    if kind == "id3v2":
        return b"ID3\x04\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + picture
    if kind == "id3v1":
        return b"TAG" + bytes(125)
    parts = [b"APETAGEX" + (2000).to_bytes(4, "little") + (size + 32).to_bytes(4, "little") + (1).to_bytes(4, "little")]
    header, footer = (parts[0] + flags.to_bytes(4, "little") + bytes(8) for flags in (0xA000_0000, 0x8000_0000))
    return header + picture + footer


def tolerant(path: Path) -> float:
    """Seconds that FFmpeg decodes when packets that fail are left out."""
    import av

    av.logging.set_level(None)
    demuxer = {".m4a": "mov", ".opus": "ogg"}.get(path.suffix, path.suffix[1:])
    seconds = 0.0
    try:
        with av.open(str(path), format=demuxer, metadata_errors="ignore") as container:
            for packet in container.demux(container.streams.audio[0]):
                try:
                    frames: Any = packet.decode()
                except av.FFmpegError:
                    continue
                seconds += sum(frame.samples / frame.sample_rate for frame in frames if frame.sample_rate)
    except (av.FFmpegError, IndexError, ValueError):
        pass
    return seconds


def study(clean: Path, seeds: int, *, classify: bool) -> Iterator[dict[str, Any]]:
    """Decode the mutations of one clean file."""
    cascade = None
    if classify:
        from edge_reclass import Cascade

        cascade = Cascade.open(threads=1)
    out = np.empty(round(SPEC.seconds or 0) * 192_000 + 100, np.float32)
    decoder = Decoder()
    data = clean.read_bytes()
    genre = cascade.classify(clean).genre if cascade else None
    whole = tolerant(clean)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{clean.suffix}"
        for kind in KINDS:
            for seed in range(seeds):
                damaged, share = mutate(data, kind, seed)
                path.write_bytes(damaged)
                result: dict[str, Any] = {"file": clean.name, "kind": kind, "seed": seed, "share": share}
                try:
                    decoded = decoder.decode(path, [SPEC], out)
                    result["status"] = "ok"
                    result["damage"] = None if decoded.damage is None else str(decoded.damage)
                    result["missing"] = 0.0 if decoded.damage is None else decoded.damage.missing
                except TrackError as error:
                    result.update(status=error.status, error=str(error))
                except Exception as error:  # what the study looks for
                    result.update(status="UNTYPED", error=repr(error))
                result["tolerant"] = min(1.0, tolerant(path) / max(whole, 1e-3))
                if cascade:
                    verdict = cascade.classify(path)
                    result.update(verdict=verdict.status, same=verdict.genre == genre)
                yield result


def report(results: list[dict[str, Any]], *, classify: bool) -> None:
    """Tables: kind and format by status; and by share of damage, what FFmpeg gives and whether the genre stays."""
    statuses = sorted({result["status"] for result in results})
    print(f"{len(results)} mutations\n\n{'':12}" + "".join(f"{status:>13}" for status in statuses))
    for key in ("kind", "format"):
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for result in results:
            row = result["kind"] if key == "kind" else result["file"].rpartition(".")[2]
            table[str(row)[:40]][result["status"]] += 1
        for row, counts in sorted(table.items()):
            print(f"{row:12}" + "".join(f"{counts[status]:13}" for status in statuses))
        print()
    print("status by what tolerant FFmpeg decodes of the file")
    good = [result for result in results if "tolerant" in result]
    for low, high in ((0, 0.5), (0.5, 0.9), (0.9, 0.98), (0.98, 1.01)):
        found = Counter(result["status"] for result in good if low <= result["tolerant"] < high)
        print(f"  {low:4.0%} to {min(high, 1):4.0%}: " + ", ".join(f"{name} {n}" for name, n in found.most_common()))
    if classify:
        print("genre as that of the clean file (of ok and unsure), by share of the excerpt that is missing")
        for low, high in ((0, 1e-9), (1e-9, 0.02), (0.02, 0.05), (0.05, 0.1001)):
            rows = [r for r in good if low <= r.get("missing", -1) < high and r["verdict"] in ("ok", "unsure")]
            print(f"  {low:5.1%} to {high:5.1%}: {sum(r['same'] for r in rows)} of {len(rows)}")
    for result in results:
        if result["status"] in ("CRASH", "UNTYPED"):
            print(result)


if __name__ == "__main__":
    sys.exit(main())
