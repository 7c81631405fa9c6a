"""Audio in: find out what a file is, decode an excerpt to mono, resample it, all into the caller's buffers.

    formats.py           suffixes, and what the first bytes of a file say
    excerpt.py           which samples of a track are looked at
    mono.py              downmix, peak and finiteness, block by block
    decode.py            one file in, one ``Decoded`` out; every failure is a ``TrackError``
    decode_soundfile.py  wav, flac, ogg/vorbis, opus, mp3, aiff, caf, … through libsndfile
    decode_av.py         m4a (aac, alac), adts aac, wma through PyAV, imported when first needed
    quiet.py             keeps libsndfile's mp3 decoder from writing to stderr
    resample.py          soxr HQ streams

Nothing here allocates memory that grows with the excerpt.
"""

from __future__ import annotations

from edge_reclass.audio.decode import Decoder
from edge_reclass.audio.excerpt import MAX_RATE, MIN_RATE, Decoded, ExcerptSpec, Limits, locate, locate_union
from edge_reclass.audio.formats import AUDIO_SUFFIXES, PYAV_SUFFIXES, SOUNDFILE_SUFFIXES, is_audio
from edge_reclass.audio.mono import mix_excerpt
from edge_reclass.audio.resample import Resampler, resampled_length

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_RATE",
    "MIN_RATE",
    "PYAV_SUFFIXES",
    "SOUNDFILE_SUFFIXES",
    "Decoded",
    "Decoder",
    "ExcerptSpec",
    "Limits",
    "Resampler",
    "is_audio",
    "locate",
    "locate_union",
    "mix_excerpt",
    "resampled_length",
]
