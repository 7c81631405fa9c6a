"""A power spectrum as a torch module for export: half the multiplications of a plain DFT, and no ``STFT`` operator."""

from __future__ import annotations

from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_reclass_export.errors import GraphError


class PowerSpectrum(nn.Module):
    """``waveform[batch, samples]`` to |DFT|² of its frames, ``[batch, frames, bins]``; always float32.

    Frames lie inside the waveform, ``hop`` apart. The power knows no phase, so time may count from the middle of the
    window. About the middle of a symmetric window, cosines see only the even part of a frame, and sines only the odd
    one. Each part has half the frame's samples.

    Args:
        window: of one frame, symmetric about its middle. A periodic Hann window is, but for its first sample, a zero.
        n_fft: period of bin 1, at least the window's length.
        hop: samples between two frames.
        bins: which bins of the transform.

    Raises:
        GraphError: the window is not symmetric.
    """

    def __init__(self, window: NDArray[np.float64], n_fft: int, hop: int, bins: NDArray[np.intp]) -> None:
        super().__init__()
        self.length, self.hop = len(window), hop
        self.first = 0 if np.allclose(window, window[::-1], rtol=0.0, atol=1e-6) else 1
        used = window[self.first :]
        if not np.allclose(used, used[::-1], rtol=0.0, atol=1e-6) or window[: self.first].any():
            raise GraphError("the window of a folded transform is not symmetric about its middle")
        self.kept = (len(used) + 1) // 2
        middle = len(used) % 2
        weights = used[-self.kept :].copy()
        if middle:
            weights[0] /= 2.0  # the sample in the middle is in both halves
        times = np.arange(self.kept) + (0.0 if middle else 0.5)
        angles = 2.0 * np.pi / n_fft * times[:, None] * bins[None, :]
        for name, wave in (("cosines", np.cos(angles)), ("sines", np.sin(angles))):
            basis = (wave * weights[:, None]).astype(np.float32)
            self.register_buffer(name, torch.from_numpy(basis), persistent=False)
        self.cosines: torch.Tensor
        self.sines: torch.Tensor

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """See the class."""
        frames = framed(waveform, self.length, self.hop)
        after = frames[:, :, self.length - self.kept :]
        before = torch.flip(frames[:, :, self.first : self.first + self.kept], [2])
        even, odd = torch.matmul(after + before, self.cosines), torch.matmul(after - before, self.sines)
        return even * even + odd * odd


def framed(waveform: torch.Tensor, length: int, hop: int) -> torch.Tensor:
    """Frames inside of ``waveform[batch, samples]``: ``[batch, frames, length]``, by blocks, shifted and joined."""
    count, block = (waveform.shape[1] - length) // hop + 1, gcd(length, hop)
    span, step = (count - 1) * hop + length, hop // block
    blocks = waveform[:, :span].reshape(-1, span // block, block)
    parts = [blocks[:, first : first + step * (count - 1) + 1 : step] for first in range(length // block)]
    return torch.cat(parts, dim=2)
