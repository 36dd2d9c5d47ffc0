"""services/generator/api.py, through the app"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from govor.onnx import open_session
from govor.repository import Repository, Version, deploy
from govor.schemas.generation import Generation
from services.generator.backends.sampling import Logits, Sampler
from services.generator.main import create_app
from services.generator.settings import GeneratorSettings
from tests.conftest import Running
from tests.generator.conftest import Draws, make_version, serving, until

LEO = {"fields": {"language": "en", "sign": "leo"}, "seed": 3}
# Hot enough that a text goes on to its limit.
LONG = LEO | {"stream": True, "max_tokens": 200, "temperature": 2, "top_p": 1}


@pytest.fixture
async def app(settings: GeneratorSettings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI, running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running(app) as client:
        yield client


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in response.aiter_lines():
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


async def stream(client: httpx.AsyncClient, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    async with client.stream("POST", "/v1/generate", json=body) as response:
        return [event async for event in events(response)]


async def generate(client: httpx.AsyncClient, **body: Any) -> Generation:
    response = await client.post("/v1/generate", json=body)
    assert response.status_code == 200, response.text
    return Generation.model_validate_json(response.content)


async def refused(client: httpx.AsyncClient, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await client.post("/v1/generate", json=body)
    return response.status_code, response.json()["error"]


async def until_cancelled(app: FastAPI) -> None:
    labels = {"service": "generator", "model": "generator", "outcome": "cancelled"}
    registry = app.state.metrics.registry
    await until(lambda: registry.get_sample_value("model_requests_total", labels) == 1)


def waits_of(app: FastAPI) -> float | None:
    """How many waits for a slot were observed."""
    labels, registry = {"service": "generator", "model": "generator"}, app.state.metrics.registry
    found: float | None = registry.get_sample_value("model_queue_duration_seconds_count", labels)
    return found


async def test_generate_answers_a_whole_text(client: httpx.AsyncClient, version: Version) -> None:
    response = await client.post("/v1/generate", json=LEO)
    made = Generation.model_validate_json(response.content)
    assert made.text
    assert made.choices is None
    assert made.usage.completion_tokens > made.usage.prompt_tokens > 0
    assert 0 <= made.timings["queue"] <= made.timings["first_token"] <= made.timings["total"]
    assert response.headers["x-model"] == made.model == "generator"
    assert response.headers["x-model-version"] == str(made.version) == str(version.number)


async def test_the_same_seed_gives_the_same_text(client: httpx.AsyncClient) -> None:
    texts = [(await generate(client, **LEO)).text for _ in range(2)]
    assert texts[0] == texts[1]
    assert (await generate(client, **LEO | {"seed": 4})).text != texts[0]


async def test_choices_are_asked_for_by_n(client: httpx.AsyncClient) -> None:
    made = await generate(client, **LEO, n=3)
    assert made.choices is not None
    assert [choice.index for choice in made.choices] == [0, 1, 2]
    assert len({choice.text for choice in made.choices}) == 3
    assert made.text == made.choices[0].text


@pytest.mark.parametrize("n", [1, 3])
async def test_a_stream_is_deltas_and_then_the_whole(client: httpx.AsyncClient, n: int) -> None:
    *deltas, (last, done) = await stream(client, **LEO, stream=True, n=n)
    assert {name for name, _ in deltas} == {"delta"}
    assert last == "done"
    made = Generation.model_validate(done)
    for index in range(n):
        text = "".join(delta["text"] for _, delta in deltas if delta["index"] == index)
        assert text == (made.choices[index].text if made.choices else made.text)
    assert len(deltas) > 20 * n


async def test_a_stream_holds_placeholders_until_they_are_filled(client: httpx.AsyncClient) -> None:
    for language in ("en", "ru"):
        fields = {"language": language, "sign": "leo"}
        for seed in range(5):
            sent = await stream(client, fields=fields, seed=seed, stream=True)
            assert not any(mark in data["text"] for _, data in sent for mark in "<>|")


async def test_the_first_event_leaves_before_30_percent_of_the_time(
    endless: GeneratorSettings, running: Running, draws: Draws
) -> None:
    draws.hold(LONG["seed"], after=60)
    async with (
        running(create_app(endless)) as client,
        client.stream("POST", "/v1/generate", json=LONG) as response,
    ):
        sent = events(response)
        assert (await anext(sent))[0] == "delta"
        draws.go_on.set()
        *_, (_, done) = [event async for event in sent]
    assert done["usage"]["completion_tokens"] == 200


async def test_after_a_disconnect_nothing_is_drawn(
    endless: GeneratorSettings, running: Running, draws: Draws
) -> None:
    draws.hold(LONG["seed"], after=60)
    app = create_app(endless)
    async with running(app) as client:
        async with client.stream("POST", "/v1/generate", json=LONG) as response:
            await anext(events(response))
        await until_cancelled(app)
        draws.go_on.set()
        await generate(client, **LEO | {"seed": 4})
    assert draws.count(LONG["seed"]) <= 61


async def test_a_disconnect_before_a_whole_text_stops_it(
    endless: GeneratorSettings, running: Running, draws: Draws
) -> None:
    draws.hold(LONG["seed"], after=60)
    app = create_app(endless)
    async with running(app) as client:
        asked = asyncio.create_task(client.post("/v1/generate", json=LONG | {"stream": False}))
        await until(draws.waits.is_set)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until_cancelled(app)
        draws.go_on.set()
        await generate(client, **LEO | {"seed": 4})
    assert draws.count(LONG["seed"]) <= 61


async def test_sampling_parameters_are_honoured(client: httpx.AsyncClient) -> None:
    short = await generate(client, **LEO, max_tokens=5)
    assert (short.usage.completion_tokens, short.finish_reason) == (5, "length")
    whole = await generate(client, **LEO)
    stop = whole.text[20:30]
    cut = await generate(client, **LEO, stop=stop)
    assert cut.finish_reason == "stop"
    assert stop not in cut.text


@pytest.mark.parametrize(
    ("body", "status", "param", "said"),
    [
        ({"fields": {"sign": "lion"}}, 422, "fields.sign", "sign is one of aries, taurus"),
        ({"fields": {"height": "tall"}}, 422, "fields.height", "no field 'height'"),
        ({"fields": {}, "max_tokens": 513}, 422, "max_tokens", "at most 512"),
        ({"prompt": "x" * 4001}, 422, "prompt", "at most 4000"),
        ({"fields": {}, "temperature": 2.1}, 422, "temperature", "less than or equal to 2"),
        ({"fields": {}, "n": 5}, 422, "n", "less than or equal to 4"),
        ({"fields": {}, "prompt": "leo"}, 422, None, "exactly one of"),
        ({"fields": {}, "model": "other"}, 404, "model", "no model other"),
        ({"fields": {}, "domain": "other"}, 404, "domain", "no domain other"),
        ({"fields": {}, "version": 999}, 404, None, "no version 999"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, param: str | None, said: str
) -> None:
    answered, error = await refused(client, **body)
    assert answered == status
    assert error["param"] == param
    assert said in error["message"]


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ({"prompt": "what do the stars say to a leo?"}, "Leo"),
        ({"prompt": "что ждёт львов завтра?"}, "Льв"),
        (
            {
                "messages": [
                    {"role": "user", "content": "I am a virgo"},
                    {"role": "assistant", "content": "An aries, you say?"},
                    {"role": "user", "content": "no, a leo"},
                ]
            },
            "Leo",
        ),
    ],
)
async def test_a_prompt_is_read_with_the_entities_of_the_pack(
    client: httpx.AsyncClient, asked: dict[str, Any], own: str
) -> None:
    texts = [(await generate(client, **asked, seed=seed)).text for seed in range(4)]
    assert any(own in text for text in texts)
    others = ("Virg", "Aries", "Дев", "Овн")
    assert not any(other in text for text in texts for other in others)


async def test_a_request_that_cannot_be_served_in_time_is_not_started(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    headers = {"x-request-timeout": "0.000001"}
    response = await client.post("/v1/generate", json=LEO, headers=headers)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert waits_of(app) == 1
    await generate(client, **LEO | {"stream": False, "n": 2, "stop": "e"})
    assert waits_of(app) == 3


async def test_an_empty_text_is_an_error(settings: GeneratorSettings, running: Running) -> None:
    def silent(folder: Path, config: dict[str, Any]) -> None:
        config["decoder"]["eos"] = list(range(config["decoder"]["vocabulary"]))

    version = make_version(settings.repository_folder, 100, silent)
    async with running(create_app(serving(settings, version))) as client:
        status, error = await refused(client, **LEO)
        assert (status, error["code"]) == (500, "generation_failed")
        [(name, data)] = await stream(client, **LEO, stream=True)
        assert (name, data["error"]["code"]) == ("error", "generation_failed")


async def test_a_model_without_fields_takes_text(
    settings: GeneratorSettings, running: Running, text_version: Version
) -> None:
    async with running(create_app(serving(settings, text_version))) as client:
        made = await generate(client, prompt="Today", max_tokens=20)
        assert made.usage.prompt_tokens >= 1
        messages = [{"role": "user", "content": "Today"}]
        chat = await generate(client, messages=messages, max_tokens=20)
        assert chat.usage.prompt_tokens > made.usage.prompt_tokens
        status, error = await refused(client, prompt="ы" * 2000)
        assert (status, error["code"]) == (422, "prompt_too_long")
        assert (await refused(client, **LEO))[1]["code"] == "unknown_field"


async def test_a_full_queue_answers_503_with_retry_after(
    settings: GeneratorSettings, running: Running, draws: Draws
) -> None:
    draws.hold(LEO["seed"], after=0)
    settings = settings.model_copy(update={"generator_slots": 1, "max_queued": 1})
    async with running(create_app(settings)) as client:
        asked = [asyncio.create_task(client.post("/v1/generate", json=LEO)) for _ in range(10)]
        await until(lambda: sum(one.done() for one in asked) >= 8)
        draws.go_on.set()
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200, 503}
    shed = next(answer for answer in answers if answer.status_code == 503)
    assert int(shed.headers["retry-after"]) >= 1
    assert shed.json()["error"]["type"] == "overloaded_error"


async def test_a_stream_ends_with_the_version_that_began_it(
    endless: GeneratorSettings, running: Running, version: Version
) -> None:
    repository = Repository(endless.repository_folder, endless.bundled_folder)
    async with running(create_app(endless)) as client:
        body = LONG | {"max_tokens": 500}
        async with client.stream("POST", "/v1/generate", json=body) as response:
            sent = events(response)
            await anext(sent)
            deploy(repository, "generator", {"champion": version.number}, 1)
            async with asyncio.timeout(30):
                while (await generate(client, **LEO)).version != version.number:
                    await asyncio.sleep(0.01)
            *_, (name, done) = [event async for event in sent]
    assert (name, done["version"]) == ("done", 100)
    assert response.headers["x-model-version"] == "100"


async def test_a_decoder_that_dies_is_not_ready_and_is_built_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(sampler: Sampler, logits: Logits) -> int:
        raise ValueError("broken on purpose")

    may_load = threading.Event()

    def open_later(*given: Any, **more: Any) -> Any:
        assert may_load.wait(30)
        return open_session(*given, **more)

    monkeypatch.setattr("services.generator.backends.decoder.open_session", open_later)
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "draw", broken)
        status, error = await refused(client, **LEO)
        assert (status, error["code"]) == (500, "generation_failed")
        assert (await client.get("/readyz")).status_code == 503
    may_load.set()
    async with asyncio.timeout(30):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)
    assert (await generate(client, **LEO)).text


async def test_predictions_keep_lengths_and_no_text(
    app: FastAPI, settings: GeneratorSettings, running: Running
) -> None:
    async with running(app) as client:
        made = await generate(client, **LEO)
    with sqlite3.connect(settings.database.removeprefix("sqlite:///")) as database:
        row = database.execute(
            "select id, service, language, input, output, output_chars from prediction"
        ).fetchall()
    database.close()
    assert row == [(made.id, "generator", "en", None, None, len(made.text))]
