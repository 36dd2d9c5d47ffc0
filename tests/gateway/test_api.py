"""Turns through the gateway's routes, with small services in place of the engines."""

from __future__ import annotations

import asyncio
import base64
import io
import wave
from pathlib import Path
from typing import Any

import httpx
import pytest

from govor.database import migrate
from govor.routes import PROMISED_SECONDS
from services.gateway.main import create_app
from services.gateway.settings import GatewaySettings
from tests.conftest import Running
from tests.gateway.conftest import EVENTS, PACKS, Gateway, events, say, stream, until
from tests.gateway.siblings import FORTUNE, RATE, Script, siblings


async def test_a_conversation_is_greeted_asked_and_answered(gateway: Gateway) -> None:
    async with gateway() as client:
        greeting = await say(client)
        assert "machine" in greeting["reply"]["text"]
        one = {"conversation_id": greeting["conversation_id"]}
        asked = await say(client, "read me the stars", **one)
        assert asked["state"]["asking"] == "sign"
        assert asked["understanding"]["intent"]["name"] == "fortune"
        assert [b["text"] for b in asked["reply"]["buttons"][0]] == ["leo", "virgo"]
        told = await say(client, "leo", **one)
        assert told["reply"]["text"].endswith(FORTUNE)
        assert told["steps"] == ["looking", "generate"]
        assert told["state"]["slots"] == {"sign": "leo"}
        assert {"nlu", "policy", "generate", "total"} <= told["timings"].keys()
        assert told["versions"]["nlu"] == "nlu:3"
        assert told["versions"]["pack"].startswith("desk:")
        assert told["degraded"] == []


async def test_a_field_that_the_model_does_not_have_is_left_out(
    gateway: Gateway, script: Script
) -> None:
    async with gateway() as client:
        await say(client, "stars leo", seed=5)
    first, second = script.requests("/v1/generate")
    assert first["fields"] == {"sign": "leo", "day": "today"}
    assert second["fields"] == {"sign": "leo"}
    assert second["seed"] == 5


async def test_a_question_asked_again_is_written_anew(gateway: Gateway, script: Script) -> None:
    async with gateway() as client:
        for _ in range(2):
            await say(client, "stars leo", conversation_id="c")
    seeds = {body["seed"] for body in script.requests("/v1/generate")}
    assert len(seeds) == 2


async def test_the_language_is_decided_once_and_passed_on(gateway: Gateway, script: Script) -> None:
    async with gateway() as client:
        turn = await say(client, "что говорят звёзды")
        assert turn["language"] == "ru"
        silent = await say(client, "", conversation_id=turn["conversation_id"])
        assert silent["language"] == "ru"
        english = await say(client, "open", conversation_id=turn["conversation_id"])
        assert english["language"] == "en"
        asked = await say(client, "open", language="ru")
        assert asked["language"] == "ru"
    assert [body["language"] for body in script.requests("/v1/understand")] == ["ru", "en", "ru"]
    assert {body["domain"] for body in script.requests("/v1/understand")} == {"desk"}


async def test_speech_is_transcribed_and_answered_by_speech(
    gateway: Gateway, script: Script
) -> None:
    async with gateway() as client:
        answer = await client.post(
            "/v1/converse",
            data={"reply": ["text", "audio"], "language": "en"},
            files={"audio": ("a.wav", b"0123456789", "audio/wav")},
        )
        turn = answer.json()
    assert turn["transcript"]["text"] == script.transcript
    assert turn["steps"] == ["looking", "generate"]
    spoken = [body["text"] for body in script.requests("/v1/synthesize")]
    assert " ".join(spoken) == turn["reply"]["text"]
    assert {body["voice"] for body in script.requests("/v1/synthesize")} == {"slt"}
    with wave.open(io.BytesIO(base64.b64decode(turn["reply"]["audio"]))) as audio:
        assert audio.getframerate() == RATE == turn["reply"]["sample_rate"]
        assert audio.readframes(audio.getnframes())[::2].decode() == "".join(spoken)
    assert 0 < turn["timings"]["first_audio"] <= turn["timings"]["total"]


async def test_the_models_that_took_part_are_named_in_order(gateway: Gateway) -> None:
    async with gateway() as client:
        body = {"reply": ["text", "audio"], "language": "en"}
        audio = {"audio": ("a.wav", b"0123456789", "audio/wav")}
        spoken = await client.post("/v1/converse", data=body, files=audio)
        assert spoken.headers["x-model"] == "stt-en, nlu, generator, tts-en"
        assert spoken.headers["x-model-version"] == "1, 3, 2, 1"
        greeting = await client.post("/v1/converse", json={})
        assert "x-model" not in greeting.headers
        asked = {"text": "stars leo"}
        streamed = await client.post("/v1/converse", json=asked, headers=EVENTS)
        assert "x-model" not in streamed.headers


async def test_a_stream_tells_everything_as_it_comes(gateway: Gateway) -> None:
    async with gateway() as client:
        told = await stream(client, text="stars leo", reply=["text", "audio"], format="pcm")
    names = [name for name, _ in told]
    assert names[0] == "understanding"
    assert names[-1] == "done"
    first_audio = names.index("audio.delta")
    assert "reply.delta" in names[:first_audio]
    done = told[-1][1]
    assert "".join(d["text"] for name, d in told if name == "reply.delta") == done["reply"]["text"]
    audio = b"".join(base64.b64decode(d["audio"]) for name, d in told if name == "audio.delta")
    assert audio[::2].decode() == done["reply"]["text"].replace(". ", ".", 1)
    assert done["reply"]["audio"] is None


async def test_streamed_wav_has_one_header(gateway: Gateway) -> None:
    async with gateway() as client:
        told = await stream(client, text="stars leo", reply=["text", "audio"])
    audio = b"".join(base64.b64decode(d["audio"]) for name, d in told if name == "audio.delta")
    assert audio[:4] == b"RIFF"
    assert audio.count(b"RIFF") == 1


# ---- siblings that are down or slow


async def test_without_tts_there_is_the_text(gateway: Gateway) -> None:
    async with gateway(down=["tts"]) as client:
        turn = await say(client, "stars leo", reply=["text", "audio"])
    assert turn["degraded"] == ["tts"]
    assert turn["reply"]["text"].endswith(FORTUNE)
    assert turn["reply"]["audio"] is None


@pytest.mark.parametrize("trouble", ["down", "slow"])
async def test_without_a_generator_there_is_the_canned_reply(
    gateway: Gateway, trouble: str
) -> None:
    async with gateway(**{trouble: ["generator"]}, gateway_generator_timeout_seconds=0.1) as client:
        turn = await say(client, "stars leo")
    assert turn["degraded"] == ["generator"]
    assert turn["steps"] == ["looking", "generate", "canned_fortune"]


@pytest.mark.parametrize("trouble", ["down", "slow"])
async def test_without_nlu_there_is_the_fallback(gateway: Gateway, trouble: str) -> None:
    async with gateway(**{trouble: ["nlu"]}, gateway_nlu_timeout_seconds=0.1) as client:
        turn = await say(client, "stars leo")
        menu = await say(client, "stars leo", conversation_id=turn["conversation_id"])
    assert turn["degraded"] == ["nlu"]
    assert turn["steps"] == ["fallback"]
    assert menu["reply"]["buttons"]


async def test_without_stt_the_bot_says_that_it_cannot(gateway: Gateway) -> None:
    async with gateway(down=["stt"]) as client:
        answer = await client.post("/v1/converse", files={"audio": b"0123456789"})
    assert answer.json()["degraded"] == ["stt"]
    assert answer.json()["steps"] == ["unavailable"]


async def test_audio_that_is_none_is_the_callers_mistake(gateway: Gateway) -> None:
    async with gateway() as client:
        answer = await client.post("/v1/converse", files={"audio": b"none"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "audio_unreadable"


async def test_a_deadline_holds_for_the_whole_turn(gateway: Gateway) -> None:
    async with gateway(slow=["nlu"]) as client:
        answer = await client.post(
            "/v1/converse", json={"text": "stars leo"}, headers={"x-request-timeout": "0.2"}
        )
    assert answer.status_code in (200, 504)
    assert answer.elapsed.total_seconds() < 20


async def test_parts_that_hurry_was_too_much_for_are_not_counted(
    tmp_path: Path, running: Running, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROMISED_SECONDS, "gateway", 25.0)
    given = {
        "domains": PACKS,
        "domain": "desk",
        "var": tmp_path,
        "gateway_nlu_timeout_seconds": 0.1,
    }
    settings = GatewaySettings.model_validate(given)
    migrate(settings.database)
    app = create_app(settings, siblings(script, slow=["nlu"]))

    def counted() -> tuple[float | None, float | None]:
        registry = app.state.metrics.registry
        turns = registry.get_sample_value("turns_total", {"domain": "desk", "channel": "api"})
        return turns, registry.get_sample_value("turns_degraded_total", {"part": "nlu"})

    assert counted() == (0, 0)
    async with running(app) as client:
        for headers, so_far in (({"x-request-timeout": "20"}, (1, 0)), ({}, (2, 1))):
            body = {"text": "stars leo"}
            turn = await client.post("/v1/converse", json=body, headers=headers)
            assert turn.json()["degraded"] == ["nlu"]
            assert counted() == so_far


async def test_when_the_client_goes_the_siblings_stop(gateway: Gateway, script: Script) -> None:
    long = "stars leo"
    async with gateway() as client:
        body = {"text": long, "reply": ["text", "audio"], "conversation_id": "c1"}
        async with client.stream("POST", "/v1/converse", json=body, headers=EVENTS) as answer:
            async for line in answer.aiter_lines():
                if line == "event: audio.delta":
                    break
        await until(lambda: script.unfinished == 1)
        await say(client, "open", conversation_id="c1")  # follows the turn that was left
        kept = await client.get("/v1/conversations/c1")
    assert [turn["utterance"] for turn in kept.json()["turns"]] == ["open"]


# ---- what is kept


async def test_what_is_kept_can_be_read_and_deleted(gateway: Gateway) -> None:
    async with gateway() as client:
        turn = await say(client, "when are you open", user="ann", consent="store")
        path, ann = f"/v1/conversations/{turn['conversation_id']}", {"x-user-id": "ann"}
        assert (await client.get(path)).status_code == 404
        kept = (await client.get(path, headers=ann)).json()
        assert kept["consent"] == "store"
        assert [one["utterance"] for one in kept["turns"]] == ["when are you open"]
        assert kept["turns"][0]["reply"] == turn["reply"]["text"]
        assert (await client.delete(path, headers=ann)).status_code == 204
        assert (await client.get(path, headers=ann)).status_code == 404


async def test_a_repeated_key_gets_the_first_answer_and_the_audio_again(
    gateway: Gateway, script: Script
) -> None:
    async with gateway() as client:
        key = {"idempotency-key": "k1"}
        body = {"text": "stars leo", "reply": ["text", "audio"]}
        first = (await client.post("/v1/converse", json=body, headers=key)).json()
        again = (await client.post("/v1/converse", json=body, headers=key)).json()
        assert again["turn_id"] == first["turn_id"]
        assert again["reply"]["text"] == first["reply"]["text"]
        assert again["reply"]["audio"]
        streamed = await client.post("/v1/converse", json=body, headers=key | EVENTS)
        assert events(streamed.text)[-1][1]["turn_id"] == first["turn_id"]
        other = await client.post("/v1/converse", json={"text": "open"}, headers=key)
        assert other.status_code == 409
    assert len(script.requests("/v1/understand")) == 1


async def test_feedback_belongs_to_a_turn(gateway: Gateway) -> None:
    async with gateway() as client:
        turn = await say(client, "open")
        body = {"turn_id": turn["turn_id"], "rating": 1}
        answer = await client.post("/v1/feedback", json=body)
        assert (answer.status_code, answer.json()) == (202, {"turn_id": turn["turn_id"]})
        unknown = await client.post("/v1/feedback", json=body | {"turn_id": "none"})
        assert unknown.json()["error"]["code"] == "turn_not_found"


# ---- what is asked wrongly


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"text": "open", "domain": "weather"}, 404, "domain"),
        ({"text": "open", "language": "de"}, 404, "language"),
        ({"text": 7}, 422, "text"),
        ({"text": "x" * 4001}, 422, "text"),
        ({"text": "open", "reply": []}, 422, "reply"),
        ({"text": "open", "reply": ["smoke"]}, 422, "reply.0"),
        ({"text": "open", "conversation_id": "a b"}, 422, "conversation_id"),
        ({"text": "open", "user": ""}, 422, "user"),
    ],
)
async def test_a_wrong_request_names_its_field(
    gateway: Gateway, body: Any, status: int, param: str
) -> None:
    async with gateway() as client:
        answer = await client.post("/v1/converse", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        assert (await say(client, "open"))["steps"] == ["open_hours"]


async def test_a_form_has_audio_or_text(gateway: Gateway) -> None:
    async with gateway() as client:
        answer = await client.post("/v1/converse", data={"language": "en"}, files={"x": b"1"})
        assert answer.status_code == 422
        form = await client.post("/v1/converse", files={"text": (None, "open")})
        assert form.json()["steps"] == ["open_hours"]


async def test_the_page_and_its_files_need_no_key(gateway: Gateway) -> None:
    async with gateway() as client:
        del client.headers["authorization"]
        page = await client.get("/")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for name in ("page.css", "page.js", "sound.js", "words.js", "icon.svg"):
            assert (await client.get(f"/static/{name}")).status_code == 200


async def test_domains_are_listed_and_parts_named(gateway: Gateway) -> None:
    async with gateway(down=["tts"]) as client:
        listed = (await client.get("/v1/domains")).json()
        assert listed["default"] == "desk"
        assert listed["domains"][0]["languages"] == ["en", "ru"]
        async with asyncio.timeout(30):
            while not (await parts(client))["nlu"]["ready"]:
                await asyncio.sleep(0.02)
        assert (await client.get("/readyz")).status_code == 503
        assert not (await parts(client))["tts"]["ready"]


async def parts(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/readyz")).json()["parts"]
    return found
