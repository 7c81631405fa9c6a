"""Audio in: find out what a file is, decode excerpts to mono, resample them, all into the caller's buffers.

    formats.py           suffixes, what the first bytes of a file say, FFmpeg's demuxers
    tags.py, pieces.py   what lies around the audio; views of a file without it
    mpeg.py, ogg.py, riff.py, protection.py  what can be known of a file without decoding it
    excerpt.py           which samples of a track are looked at
    decoded.py           the record of what was decoded
    mono.py              downmix and finiteness, block by block; whether the mix cancels
    reading.py           attempts: segments, gaps, files that end early, channels that cancel
    decode.py            one file in, one ``Decoded`` out; every failure is a ``TrackError``
    decode_soundfile.py  wav, flac, ogg/vorbis, opus, mp3, aiff, caf, … through libsndfile
    decode_frames.py     MPEG frames that lie between tags and damage
    decode_av.py         everything else, and what is damaged, through PyAV, imported when first needed
    memory.py            samples that are in memory already
    quiet.py             keeps libsndfile's mp3 decoder from writing to stderr
    resample.py          soxr HQ streams

Nothing here allocates memory that grows with the excerpt.
"""

from __future__ import annotations

from edge_reclass.audio.decode import Decoder
from edge_reclass.audio.decoded import Damage, Decoded, Segment
from edge_reclass.audio.excerpt import MAX_RATE, MIN_RATE, ExcerptSpec, Limits, decode_seconds, locate, segments
from edge_reclass.audio.formats import (
    AUDIO_SUFFIXES,
    PYAV_SUFFIXES,
    SOUNDFILE_SUFFIXES,
    has_audio_suffix,
    needs_pyav,
)
from edge_reclass.audio.memory import mix_excerpt
from edge_reclass.audio.resample import Resampler, resampled_length

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_RATE",
    "MIN_RATE",
    "PYAV_SUFFIXES",
    "SOUNDFILE_SUFFIXES",
    "Damage",
    "Decoded",
    "Decoder",
    "ExcerptSpec",
    "Limits",
    "Resampler",
    "Segment",
    "decode_seconds",
    "has_audio_suffix",
    "locate",
    "mix_excerpt",
    "needs_pyav",
    "resampled_length",
    "segments",
]
