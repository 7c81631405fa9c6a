"""Inputs from real libraries, beside the real audio; skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_reclass.audio import Decoder, ExcerptSpec
from edge_reclass.errors import TrackError

# Status, and seconds of the track; what the cascade makes of a signal (silent, too short) is not told here.
EXPECTED: dict[str, tuple[str, float]] = {
    "mp3_clean.mp3": ("ok", 11.05), "flac_clean.flac": ("ok", 7.0), "flac_flip_one.flac": ("damaged", 7.0),
    "flac_hole_64k.flac": ("corrupt", 0.0), "flac_seektable_bad.flac": ("ok", 34.0), "flac_32bit.flac": ("ok", 3.0),
    "caf_alac.caf": ("ok", 7.0), "m4a_one_bad_packet.m4a": ("damaged", 11.0), "mp3_hole_4k.mp3": ("damaged", 11.05),
    "mp3_ape_end_cover.mp3": ("ok", 11.05), "mp3_id3_middle.mp3": ("ok", 11.05), "mp3_joined.mp3": ("ok", 16.07),
    "mp3_xing_much.mp3": ("ok", 11.05), "mp3_xing_zero.mp3": ("ok", 11.05), "ogg_chained.ogg": ("ok", 16.0),
    "ogg_flips.ogg": ("corrupt", 0.0), "ogg_id3.ogg": ("ok", 11.0), "wav_size0.wav": ("ok", 5.0),
    "wav_dts.wav": ("ok", 5.0), "wav_g726.wav": ("ok", 11.0), "wav_aac.wav": ("unsupported", 0.0),
    "aac_latm.aac": ("ok", 11.03), "webm_as_mp3.mp3": ("ok", 11.0), "ac3.ac3": ("ok", 11.0), "dts.dts": ("ok", 6.0),
    "audio.mka": ("ok", 7.0), "audio.webm": ("ok", 11.0), "wavpack.wv": ("ok", 7.0), "dsd.dsf": ("ok", 0.56),
    "dc_only.wav": ("ok", 3.0), "hiss.wav": ("ok", 3.0), "wav_quiet.wav": ("ok", 3.0), "wav_float_ref.wav": ("ok", 3.0),
    "st_antiphase.wav": ("ok", 3.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def cases(data: Path) -> Path:
    folder = data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no inputs from real libraries: {folder} does not exist")
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_case(name: str, cases: Path) -> None:
    av = pytest.importorskip("av")
    if name == "flac_flip_one.flac" and int(av.__version__.split(".")[0]) < 14:
        pytest.skip("the FFmpeg of older PyAV loses the packets around a bad flac frame, too")
    status, seconds = EXPECTED[name]
    out = np.empty(31 * 192_000, np.float32)
    try:
        decoded = Decoder().decode(cases / name, [ExcerptSpec()], out)
    except TrackError as error:
        assert error.status == status
        assert status != "corrupt" or "% of the excerpt" in str(error)
        return
    assert status == ("ok" if decoded.damage is None else "damaged")
    assert decoded.total / decoded.rate == pytest.approx(seconds, abs=0.08)
    assert decoded.channel == (0 if name == "st_antiphase.wav" else None)
