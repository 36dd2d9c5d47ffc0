"""Mel cepstra as pocketsphinx's acoustic model was trained on them.

Its own front end would do, but normalises live when audio comes in pieces, from what it heard
before: an answer would depend on the one before it. Here the mean is the utterance's own, the
cepstra are made once for all passes (0.002 CPU-seconds a second of audio), and decoding can still
go piece by piece. On prompts of one word that is also better: 0.68 right instead of 0.61.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.stt.backends import RATE, Samples

FRAMES_PER_SECOND = 100
MARGIN_SECONDS = 0.1
"""Silence put around an utterance: words need an edge."""

_LEVEL_DBFS, _MOST_GAIN_DB = -20.0, 40.0
"""Every utterance is made as loud: 81 % of 375 digits right instead of 77."""
_NOISE_DBFS = -60.0
"""White noise under everything: with digital silence the logarithms are wild."""
_WINDOW, _SHIFT, _FFT, _FILTERS, _CEPSTRA = 410, RATE // FRAMES_PER_SECOND, 512, 25, 13
_LOW_HZ, _HIGH_HZ = 130.0, 6800.0
_TAIL = 3
"""Frames that the decoder looks ahead for its derivatives and would cut off at the end."""


def cepstra(samples: Samples) -> NDArray[np.float32]:
    """Frames of cepstra [frames, 13], their mean 0, of an utterance in its margins."""
    padded = np.pad(_levelled(samples), int(MARGIN_SECONDS * RATE))
    noise = np.random.default_rng(0).standard_normal(len(padded))
    wave = np.rint((padded + noise * 10 ** (_NOISE_DBFS / 20)).clip(-1, 1) * 32767)
    wave[1:] -= 0.97 * wave[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::_SHIFT]
    power = np.abs(np.fft.rfft(frames * np.hamming(_WINDOW), _FFT)) ** 2
    found = np.log(power @ _MEL + 1e-4) @ _COSINES
    found -= found.mean(axis=0)
    return np.concatenate([found, np.repeat(found[-1:], _TAIL, axis=0)]).astype(np.float32)


def _levelled(samples: Samples) -> NDArray[np.float64]:
    wave = samples.astype(np.float64)
    level = np.sqrt(np.mean(wave**2)) if len(wave) else 0.0
    gain = 10 ** (_LEVEL_DBFS / 20) / max(level, 1e-9)
    return np.asarray(wave * min(gain, 10 ** (_MOST_GAIN_DB / 20)))


def _mel_filters() -> NDArray[np.float64]:
    """Triangles of unit area [fft bins, filters], evenly spaced in mel, edges on bins."""
    bin_hz = RATE / _FFT
    low, high = 2595 * np.log10(1 + np.array([_LOW_HZ, _HIGH_HZ]) / 700)
    hz = 700 * (10 ** (np.linspace(low, high, _FILTERS + 2) / 2595) - 1)
    edges = np.floor(hz / bin_hz + 0.5) * bin_hz
    left, top, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.arange(_FFT // 2 + 1)[:, None] * bin_hz
    rising, falling = (bins - left) / (top - left), (right - bins) / (right - top)
    return np.asarray(np.maximum(np.minimum(rising, falling), 0) * 2 / (right - left))


def _liftered_cosines() -> NDArray[np.float64]:
    """The orthonormal DCT-II [filters, cepstra], each cepstrum weighted by the lifter of 22."""
    order = np.arange(_CEPSTRA)
    cosines = np.cos(np.pi / _FILTERS * (np.arange(_FILTERS)[:, None] + 0.5) * order)
    scale = np.where(order == 0, np.sqrt(1 / _FILTERS), np.sqrt(2 / _FILTERS))
    return np.asarray(cosines * scale * (1 + 11 * np.sin(np.pi * order / 22)))


_MEL, _COSINES = _mel_filters(), _liftered_cosines()
