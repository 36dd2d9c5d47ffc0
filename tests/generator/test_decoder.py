"""services/generator/backends: the decoder and its engine, on the bundled weights."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing

import numpy as np
import pytest

from govor.errors import DeadlineExceeded, InternalError, Overloaded, Unavailable
from govor.onnx import open_session
from govor.repository import Version, VersionBroken
from services.generator.backends import Backend, Finish, load
from services.generator.backends.decoder import Decoder
from services.generator.backends.engine import CHUNK
from services.generator.backends.prompts import Asked
from services.generator.backends.sampling import Logits, Sampler, Sampling
from tests.generator.conftest import Draws, make_version, until

FIELDS = Asked(fields={"language": "en", "sign": "leo"})
# Hot enough that texts are long and all different.
WILD = Sampling(temperature=2, top_p=1, max_tokens=60)


async def streamed(
    backend: Backend, asked: Asked, sampling: Sampling, wait: float = 0
) -> tuple[str, Finish]:
    await asyncio.sleep(wait)
    text = ""
    async with aclosing(backend.stream(asked, sampling)) as pieces:
        async for piece in pieces:
            text += piece.text
            if piece.finish is not None:
                return text, piece.finish
    raise AssertionError("the stream had no end")


def seeded(seed: int, sampling: Sampling = WILD, **changes: object) -> Sampling:
    return Sampling(**{**sampling.__dict__, "seed": seed, **changes})


@pytest.fixture
def text_decoder(text_version: Version) -> Iterator[Backend]:
    decoder = load(text_version, slots=4)
    yield decoder
    decoder.close()


async def test_a_text_does_not_depend_on_what_else_is_drawn(decoder: Backend) -> None:
    alone = [await streamed(decoder, FIELDS, seeded(seed)) for seed in range(20)]
    waits = np.random.default_rng(0).uniform(0, 0.05, len(alone))
    together = await asyncio.gather(
        *(streamed(decoder, FIELDS, seeded(seed), waits[seed]) for seed in range(len(alone)))
    )
    assert [text for text, _ in together] == [text for text, _ in alone]
    assert len({text for text, _ in alone}) == len(alone)


async def test_logits_of_ragged_rows_are_those_of_solo_runs(
    text_version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[Logits]] = {}
    draw = Sampler.draw

    def recorded(sampler: Sampler, logits: Logits) -> int:
        seen.setdefault(sampler.sampling.seed, []).append(logits.copy())
        return draw(sampler, logits)

    monkeypatch.setattr(Sampler, "draw", recorded)
    prompts = ["a" * size for size in (1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, 7, 2)]
    decoder = load(text_version, slots=4)
    for at, prompt in enumerate(prompts):
        await streamed(decoder, Asked(prompt=prompt), seeded(at, max_tokens=20 + at))
    alone, seen = dict(seen), {}
    await asyncio.gather(
        *(
            streamed(decoder, Asked(prompt=prompt), seeded(at, max_tokens=20 + at), at / 500)
            for at, prompt in enumerate(prompts)
        )
    )
    decoder.close()
    for at in range(len(prompts)):
        assert len(seen[at]) == len(alone[at])
        assert np.abs(np.array(seen[at]) - np.array(alone[at])).max() <= 1e-6


async def test_cached_decoding_gives_the_logits_of_the_whole_text(
    text_version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token by token against one run without a cache; 8-bit activations leave 3 % of a logit's
    spread between the two orders of summation."""
    logits: list[Logits] = []
    tokens: list[int] = []
    draw = Sampler.draw

    def recorded(sampler: Sampler, row: Logits) -> int:
        logits.append(row.copy())
        tokens[:] = sampler.tokens
        return draw(sampler, row)

    monkeypatch.setattr(Sampler, "draw", recorded)
    decoder = load(text_version, slots=2)
    await streamed(decoder, Asked(prompt="Today"), seeded(1, max_tokens=40))
    decoder.close()
    session = open_session(text_version.path("model.onnx"))
    ids = np.array([tokens], np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for past in session.get_inputs()[2:]:
        feeds[past.name] = np.zeros((1, past.shape[1], 0, logits_head(past.shape)), np.float32)
    whole = session.run(["logits"], feeds)[0][0, -len(logits) :]
    assert np.abs(np.array(logits) - whole).max() <= 0.05 * whole.std()


def logits_head(shape: list[object]) -> int:
    return shape[3] if isinstance(shape[3], int) else 64


async def test_the_same_seed_draws_the_same_text_and_choices_differ(decoder: Backend) -> None:
    first = await decoder.generate(FIELDS, Sampling(seed=5), n=3)
    again = await decoder.generate(FIELDS, Sampling(seed=5), n=3)
    assert [piece.text for piece in first] == [piece.text for piece in again]
    assert len({piece.text for piece in first}) == 3
    assert [piece.index for piece in first] == [0, 1, 2]


async def test_temperature_zero_is_one_text(decoder: Backend) -> None:
    texts = {
        (await streamed(decoder, FIELDS, seeded(seed, temperature=0, top_p=0.9)))[0]
        for seed in range(3)
    }
    # The seed still chooses what the prompt leaves to chance.
    assert len(texts) <= 3


async def test_max_tokens_end_a_text(decoder: Backend) -> None:
    _, finish = await streamed(decoder, FIELDS, seeded(1, max_tokens=7))
    assert (finish.reason, finish.completion_tokens) == ("length", 7)


async def test_the_context_ends_a_text(text_decoder: Decoder) -> None:
    asked = Asked(prompt="a b " * 60)
    sampling = seeded(1, max_tokens=100_000, stop=())
    context = text_decoder._config.decoder.context
    _, finish = await streamed(text_decoder, asked, sampling)
    assert finish.prompt_tokens + finish.completion_tokens <= context


async def test_a_stop_string_ends_a_text_and_none_of_it_leaks(decoder: Backend) -> None:
    text, _ = await streamed(decoder, FIELDS, Sampling(seed=4))
    stop = text[30:41]
    cut, finish = await streamed(decoder, FIELDS, Sampling(seed=4, stop=(stop,)))
    assert cut == text[: text.index(stop)]
    assert (finish.reason, finish.stopped) == ("stop", True)


async def test_a_text_that_fails_the_filter_is_drawn_four_times(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def fault(text: str, *_: object) -> str:
        drawn.append(text)
        return "never good"

    monkeypatch.setattr("services.generator.backends.decoder.fault", fault)
    decoder = load(version, slots=2)
    [piece] = await decoder.generate(FIELDS, Sampling(seed=1))
    [again] = await decoder.generate(FIELDS, Sampling(seed=1))
    decoder.close()
    assert len(drawn) == 8
    assert len(set(drawn)) == 4
    assert piece.text == again.text == drawn[3]


async def test_what_a_stop_string_cut_is_not_judged(decoder: Backend) -> None:
    [piece] = await decoder.generate(FIELDS, Sampling(seed=1, stop=(" ",)))
    assert piece.finish is not None
    assert piece.finish.completion_tokens < 10


async def test_a_full_queue_refuses_at_once(version: Version) -> None:
    decoder = load(version, slots=1, max_queued=2)
    drawing = (streamed(decoder, FIELDS, seeded(seed)) for seed in range(20))
    answers = await asyncio.gather(*drawing, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert 0 < len(refused) <= 18
    assert all(error.code == "queue_full" and error.retry_after for error in refused)
    assert all(isinstance(answer, tuple | Overloaded) for answer in answers)
    decoder.close()


async def test_a_deadline_that_passed_in_the_queue_is_an_error(version: Version) -> None:
    decoder = load(version, slots=1)
    first = asyncio.create_task(streamed(decoder, FIELDS, WILD))
    with pytest.raises(DeadlineExceeded):
        await decoder.generate(FIELDS, WILD, deadline=time.monotonic() - 0.001)
    await first
    decoder.close()


async def test_the_waits_of_texts_that_are_never_drawn_are_told(
    version: Version, draws: Draws
) -> None:
    draws.hold(1, after=5)
    waits: list[float] = []
    decoder = load(version, slots=1, waited=waits.append)
    first = asyncio.create_task(streamed(decoder, FIELDS, seeded(1)))
    await until(draws.waits.is_set)
    late = asyncio.create_task(
        decoder.generate(FIELDS, seeded(2), deadline=time.monotonic() - 0.001)
    )
    gone = asyncio.create_task(streamed(decoder, FIELDS, seeded(3)))
    await until(lambda: len(decoder._engine._waiting) == 2)
    gone.cancel()
    await asyncio.sleep(0.05)
    draws.go_on.set()
    await asyncio.gather(first, late, gone, return_exceptions=True)
    await until(lambda: len(waits) == 3)
    assert min(waits[1:]) >= 0.04
    assert draws.count(2) == draws.count(3) == 0
    decoder.close()


async def test_a_cancelled_text_frees_its_slot(version: Version, draws: Draws) -> None:
    draws.hold(1, after=5)
    decoder = load(version, slots=1)
    task = asyncio.create_task(streamed(decoder, FIELDS, seeded(1)))
    await until(draws.waits.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    draws.go_on.set()
    text, _ = await streamed(decoder, FIELDS, seeded(2))
    assert text
    assert draws.count(1) <= 6
    decoder.close()


async def test_long_prompts_do_not_stall_texts_that_are_drawn(
    text_version: Version, draws: Draws
) -> None:
    """A prompt of ten chunks joins: steps of the other text go on between them."""
    draws.hold(1, after=5)
    decoder = load(text_version, slots=2)
    long = Asked(prompt="a b c d " * (10 * CHUNK // 8))
    other = asyncio.create_task(streamed(decoder, Asked(prompt="a"), seeded(1, max_tokens=200)))
    await until(draws.waits.is_set)
    joining = asyncio.create_task(streamed(decoder, long, seeded(2, max_tokens=1)))
    await until(lambda: len(decoder._engine._waiting) == 1)
    draws.go_on.set()
    await joining
    assert draws.seeds.index(2) >= 10
    await other
    decoder.close()


async def test_a_dead_engine_tells_everybody_and_says_so(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, submitted = load(version, slots=1), threading.Event()

    def broken(sampler: Sampler, logits: Logits) -> int:
        assert submitted.wait(30)
        raise ValueError("broken on purpose")

    monkeypatch.setattr(Sampler, "draw", broken)
    drawing = [asyncio.create_task(streamed(decoder, FIELDS, WILD)) for _ in range(3)]
    await until(lambda: len(decoder._engine._waiting) == 2)
    submitted.set()
    for error in await asyncio.gather(*drawing, return_exceptions=True):
        assert isinstance(error, InternalError)
    assert not decoder.alive
    with pytest.raises(Unavailable):
        await streamed(decoder, FIELDS, WILD)
    decoder.close()


async def test_closing_tells_who_still_waits(version: Version, draws: Draws) -> None:
    draws.hold(0, after=5)
    decoder = load(version, slots=1)
    drawing = [asyncio.create_task(streamed(decoder, FIELDS, seeded(s))) for s in range(3)]
    await until(draws.waits.is_set)
    closing = asyncio.create_task(asyncio.to_thread(decoder.close))
    await until(lambda: not decoder.alive)
    draws.go_on.set()
    await closing
    errors = await asyncio.gather(*drawing, return_exceptions=True)
    assert all(isinstance(error, Unavailable) for error in errors)


async def test_the_idle_engine_sleeps(decoder: Backend) -> None:
    await streamed(decoder, FIELDS, Sampling(seed=1))
    clock = time.pthread_getcpuclockid(decoder._engine._thread.ident)
    before = time.clock_gettime(clock)
    await asyncio.sleep(0.3)
    assert time.clock_gettime(clock) - before < 0.05


def test_a_version_of_another_shape_does_not_load(tmp_path_factory: pytest.TempPathFactory) -> None:
    def wrong(folder: object, config: dict[str, object]) -> None:
        config["decoder"] = "none"

    with pytest.raises(VersionBroken, match="decoder"):
        load(make_version(tmp_path_factory.mktemp("wrong"), 1, wrong))


def test_an_unknown_backend_does_not_load(tmp_path_factory: pytest.TempPathFactory) -> None:
    odd = make_version(tmp_path_factory.mktemp("odd"), 1, lambda *_: None, backend="abacus")
    with pytest.raises(VersionBroken, match="no backend 'abacus'"):
        load(odd)
