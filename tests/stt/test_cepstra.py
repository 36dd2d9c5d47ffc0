"""services/stt/backends/cepstra.py"""

from __future__ import annotations

import numpy as np
import pytest

from services.stt.backends.cepstra import cepstra
from tests.stt.conftest import noise


@pytest.mark.parametrize("length", [0, 1, 159, 160, 16_000])
def test_frames_of_any_length_are_finite_and_centred(length: int) -> None:
    frames = cepstra(noise(1, -20)[:length])
    assert frames.shape[1] == 13
    assert frames.dtype == np.float32
    assert len(frames) == pytest.approx(length / 160 + 20 + 3, abs=3)
    assert np.isfinite(frames).all()
    assert np.abs(frames[:-3].mean(axis=0)).max() < 1e-4


def test_digital_silence_is_no_special_case() -> None:
    assert np.isfinite(cepstra(np.zeros(16_000, np.float32))).all()


def test_the_same_audio_gives_the_same_frames_at_any_loudness() -> None:
    wave = noise(1, -20, pink=True)
    np.testing.assert_array_equal(cepstra(wave), cepstra(wave))
    inner = slice(20, -30)  # the margins are the noise floor's, which stays
    loud, soft = cepstra(wave)[inner], cepstra(wave / 4)[inner]
    np.testing.assert_allclose(loud - loud.mean(0), soft - soft.mean(0), atol=1.0)
