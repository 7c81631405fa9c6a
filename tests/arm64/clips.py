"""Collect real clips in every format for one run: copies, and short mp3, wav, flac and m4a made of others.

Needs soundfile and av. The folder is the caller's to delete; nothing of it belongs into the project.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import av
import numpy as np
import soundfile

# Name of the copy, source in the data folder. Stage 1 decides some and stage 2 others; rates from 16 to 44.1 kHz. An
# encoder's window takes ten seconds and more under qemu, so clips of stage 2 are short, or made short.
CLIPS = {
    "rock.mp3": "audio/fma/000256.mp3",
    "speech.ogg": "audio/cc_music/198-209-0000.hq.ogg",
    "classical.ogg": "gtzan/classical/classical.00010.ogg",
    "disco.ogg": "gtzan/disco/disco.00013.ogg",
}
MADE = {
    "hiphop.mp3": "audio/fma/000002.mp3",
    "hiphop-2.wav": "audio/fma/000005.mp3",
    "orchestra.flac": "audio/cc_music/Hungarian_Dance_number_5_-_Allegro_in_F_sharp_minor_(string_orchestra).hq.ogg",
    "rock-2.m4a": "audio/fma/000182.mp3",
}
SECONDS = 6
"""Length of the clips that are made, from the middle of their source."""


def main() -> None:
    """``clips.py DATA FOLDER``."""
    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for name, source in (CLIPS | MADE).items():
        file = data / source
        if not file.is_file():
            sys.exit(f"clips.py: {file} does not exist; set EDGE_RECLASS_DATA to the folder of real audio")
        if name in CLIPS:
            shutil.copyfile(file, folder / name)
        else:
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
            start = max(0, len(samples) - SECONDS * rate) // 2
            _encode(samples[start : start + SECONDS * rate], rate, folder / name)


def _encode(samples: np.ndarray, rate: int, file: Path) -> None:
    if file.suffix != ".m4a":
        soundfile.write(file, samples, rate, subtype=None if file.suffix == ".mp3" else "PCM_16")
        return
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(str(file), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.codec_context.layout = layout
        stream.bit_rate = 160_000
        for start in range(0, len(samples) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[start : start + 1024].T), format="fltp", layout=layout
            )
            frame.sample_rate = rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
