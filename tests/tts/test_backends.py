"""services/tts/backends"""

from __future__ import annotations

import os
import signal

import pytest

from services.tts.backends import choose, installed


def test_the_wanted_engine_speaks_where_it_is_installed() -> None:
    assert choose("flite", {"flite", "espeak"}, {"flite", "espeak"}) == "flite"


def test_another_stands_in_where_it_is_not() -> None:
    assert choose("flite", {"espeak"}, {"flite", "espeak"}) == "espeak"


@pytest.mark.parametrize(("has", "speaks"), [(set(), {"flite"}), ({"flite"}, {"espeak"})])
def test_without_an_engine_the_error_says_what_to_install(has: set[str], speaks: set[str]) -> None:
    with pytest.raises(RuntimeError, match="libflite1"):
        choose("flite", has, speaks)


@pytest.mark.skipif("espeak" not in installed(), reason="no espeak-ng: install espeak-ng")
@pytest.mark.parametrize("noticed", [False, True])
def test_a_killed_espeak_process_is_started_again(noticed: bool) -> None:
    from services.tts.backends.espeak import Espeak

    engine = Espeak({"ru": "ru"})
    before = engine.speak("привет", "ru", 1.0)
    os.kill(engine._process.pid, signal.SIGKILL)
    if noticed:  # then it is the request that cannot be written, else the answer that is missing
        engine._process.wait()
    after = engine.speak("привет", "ru", 1.0)
    assert abs(after.size - before.size) < engine.sample_rate / 10
    engine.close()
    assert engine._process.returncode is not None
