"""services/nlu/api.py, with the bundled version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.nlu.main import create_app
from services.nlu.settings import NluSettings
from tests.conftest import Running

TEXT = "What do the stars say for leo tomorrow?"


@pytest.fixture
async def client(tmp_path: Path, running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running(create_app(NluSettings(var=tmp_path))) as client:
        yield client


async def test_an_utterance_is_understood(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/understand", json={"text": TEXT, "domain": "horoscope"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == "nlu"
    assert answer.headers["x-model-version"] == str(answer.json()["version"])
    body = answer.json()
    assert body["text"] == TEXT
    assert body["language"] == "en"
    assert body["intent"]["name"] == "horoscope"
    assert body["intent_ranking"][0] == body["intent"]
    assert len(body["intent_ranking"]) == 10
    assert not body["out_of_scope"]
    sign = next(entity for entity in body["entities"] if entity["entity"] == "sign")
    assert (sign["value"], TEXT[sign["start"] : sign["end"]]) == ("leo", "leo")


async def test_a_batch_keeps_its_order(client: httpx.AsyncClient) -> None:
    texts = [TEXT, "", "спасибо", "how do I change the oil in my car"]
    answer = await client.post("/v1/understand", json={"texts": texts})
    results = answer.json()["results"]
    assert [result["text"] for result in results] == texts
    assert [result["intent"]["name"] for result in results] == ["horoscope", None, "thanks", None]
    assert [result["out_of_scope"] for result in results] == [False, True, False, True]


async def test_offsets_count_code_points_of_the_text_as_sent(client: httpx.AsyncClient) -> None:
    text = "🙂🙂  ЁЖ, гороскоп для Льва…"
    body = (await client.post("/v1/understand", json={"text": text})).json()
    sign = next(entity for entity in body["entities"] if entity["entity"] == "sign")
    assert text[sign["start"] : sign["end"]] == "Льва"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 422, None),
        ({"text": "a", "texts": ["b"]}, 422, None),
        ({"texts": []}, 422, "texts"),
        ({"texts": ["a"] * 257}, 422, "texts"),
        ({"text": "a" * 4001}, 422, "text"),
        ({"text": 7}, 422, "text"),
        ({"text": "a", "domain": "nowhere"}, 404, "domain"),
        ({"text": "a", "model": "bert"}, 404, "model"),
        ({"text": "a", "language": "de"}, 404, "language"),
    ],
)
async def test_bad_requests_name_the_field(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str | None
) -> None:
    answer = await client.post("/v1/understand", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


async def test_an_unknown_version_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/understand", json={"text": "a", "version": 999})
    assert answer.status_code in (403, 404)  # 403: the internal key is no administrator's
