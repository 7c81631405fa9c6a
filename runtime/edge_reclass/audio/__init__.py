"""Audio in: find out what a file is, decode excerpts to mono, resample them, all into the caller's buffers.

    formats.py           suffixes, what the first bytes of a file say, FFmpeg's demuxers
    tags.py, pieces.py   what lies around the audio; views of a file without it
    mpeg.py, ogg.py, riff.py, protection.py  what can be known of a file without decoding it
    excerpt.py           which samples of a track are looked at
    decoded.py           the record of what was decoded
    mono.py              downmix and finiteness, block by block; whether the mix cancels
    reading.py           attempts: segments, gaps, files that end early, channels that cancel
    runs.py              runs of samples, as sets
    track.py             a track that stays open, for more of it to be read when it is asked for
    decode.py            one file in, one ``Decoded`` out; every failure is a ``TrackError``
    decode_soundfile.py  wav, flac, ogg/vorbis, opus, mp3, aiff, caf, … through libsndfile
    decode_frames.py     MPEG frames that lie between tags and damage
    decode_av.py         everything else, and what is damaged, through PyAV, imported when first needed
    memory.py            samples that are in memory already
    quiet.py             keeps libsndfile's mp3 decoder from writing to stderr
    resample.py          soxr HQ streams
    hashing.py           a hash of the sound, which no tagger changes
    loudness.py          level of a window, whether it is silent; bringing it to a level

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
from edge_reclass.audio.hashing import audio_hash
from edge_reclass.audio.loudness import level, normalise
from edge_reclass.audio.memory import mix_excerpt, open_samples
from edge_reclass.audio.reading import MIN_DECODED, Choose
from edge_reclass.audio.resample import Resampler, Tiles, resampled_length
from edge_reclass.audio.runs import Run
from edge_reclass.audio.track import OpenTrack

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_RATE",
    "MIN_DECODED",
    "MIN_RATE",
    "PYAV_SUFFIXES",
    "SOUNDFILE_SUFFIXES",
    "Choose",
    "Damage",
    "Decoded",
    "Decoder",
    "ExcerptSpec",
    "Limits",
    "OpenTrack",
    "Resampler",
    "Run",
    "Segment",
    "Tiles",
    "audio_hash",
    "decode_seconds",
    "has_audio_suffix",
    "level",
    "locate",
    "mix_excerpt",
    "needs_pyav",
    "normalise",
    "open_samples",
    "resampled_length",
    "segments",
]
