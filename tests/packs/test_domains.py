"""Packs are read and checked; every complaint says where."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from govor.domains import Collect, PackError, load_pack, load_packs
from govor.domains.__main__ import main, schema
from govor.entities import EntityFinder, spec_of
from govor.templates import pack_lists, to_jsgf
from tests.packs.pizza import FILES, write

HOME = Path(__file__).resolve().parents[2]


def test_a_pack_from_yaml_alone(tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path))
    assert pack.languages == ("en",)
    assert pack.flow_of("order") == "order"
    assert pack.flows["order"].steps[0] == Collect(collect="pizza")
    assert len(list(pack.utterances("en"))) == 76
    assert pack.fill("{number} {size} {pizza}", {"number": 2, "pizza": "funghi"}, "en") == (
        "2  Funghi"
    )


def test_what_slots_hold_is_never_a_template(tmp_path: Path) -> None:
    pack = load_pack(write(tmp_path))
    assert pack.fill("{pizza}!", {"pizza": "{size}", "size": "large"}, "en") == "{size}!"


def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    first = load_pack(write(tmp_path / "a")).digest
    assert load_pack(write(tmp_path / "b")).digest == first
    folder = write(tmp_path / "c")
    (folder / "corpus.txt").write_text("== open\n")
    assert load_pack(folder).digest != first


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            "domain.yaml",
            "greeting: greeting",
            "greeting: hello",
            "domain.yaml:3: greeting: there is no reply 'hello'",
        ),
        (
            "domain.yaml",
            "languages: [en]",
            "languages: [en, ru]",
            "intents/order.yaml:2: utterances: nothing for the language 'ru'",
        ),
        (
            "domain.yaml",
            "name: pizza",
            "name: pasta",
            "domain.yaml:1: name: the folder is called 'pizza'",
        ),
        ("domain.yaml", "ended: greeting\n", "", "domain.yaml:1: ended: Field required"),
        (
            "domain.yaml",
            "{ flow: human }",
            "{ flow: cook }",
            "domain.yaml:9: no_match.1: there is no flow 'cook'",
        ),
        (
            "domain.yaml",
            "stopped: stopped",
            "stopped: stopped\nstoped: x",
            "domain.yaml:6: stoped: Extra inputs are not permitted",
        ),
        (
            "domain.yaml",
            "stopped: stopped",
            "stopped: stopped\nstopped: x",
            "domain.yaml:6: stopped: given twice",
        ),
        ("domain.yaml", "languages: [en]", "languages: [en", "domain.yaml:3: expected ',' or ']'"),
        (
            "intents/hours.yaml",
            '"opening hours"',
            '"opening (hours"',
            "intents/hours.yaml:5: utterances.en.1: 'opening (hours'",
        ),
        (
            "intents/hours.yaml",
            '"opening hours"',
            '"{day} hours"',
            "intents/hours.yaml:5: utterances.en.1: there is no entity 'day'",
        ),
        (
            "intents/hours.yaml",
            '"opening hours"',
            "12.5",
            "intents/hours.yaml:5: utterances.en.1: Input should be a valid string",
        ),
        (
            "intents/hours.yaml",
            "intent: hours",
            "intent: time",
            "intents/hours.yaml:1: intent: the file of 'time' is intents/time.yaml",
        ),
        (
            "entities/size.yaml",
            "entity: size",
            "entity: size\nresolver: number",
            "entities/size.yaml:1: give exactly one of values, pattern and resolver",
        ),
        (
            "entities/number.yaml",
            "resolver: number",
            "resolver: colour",
            "entities/number.yaml:2: resolver: Input should be 'number'",
        ),
        (
            "entities/number.yaml",
            "resolver: number",
            "pattern: '('",
            "entities/number.yaml:2: pattern: not a regular expression",
        ),
        (
            "flows.yaml",
            "collect: size",
            "collect: crust",
            "flows.yaml:4: order.steps.1: there is no entity 'crust'",
        ),
        (
            "flows.yaml",
            "say: too_many",
            "say: too_few",
            "flows.yaml:8: order.steps.3.then.0: there is no reply 'too_few'",
        ),
        (
            "flows.yaml",
            "number > 20",
            "number >",
            "flows.yaml:7: order.steps.3.if: a value is missing",
        ),
        (
            "flows.yaml",
            "number > 20",
            "count > 20",
            "flows.yaml:7: order.steps.3: there is no slot 'count'",
        ),
        (
            "flows.yaml",
            "confirm: summary",
            "ask: summary",
            "flows.yaml:9: order.steps.4: a step is one of: collect, say",
        ),
        (
            "flows.yaml",
            "handoff: kitchen",
            "handoff: cellar",
            "flows.yaml:14: human.steps.1: there is no hand-over 'cellar'",
        ),
        (
            "flows.yaml",
            "default: 1",
            "defualt: 1",
            "flows.yaml:6: order.steps.2.defualt: Extra inputs are not permitted",
        ),
        ("flows.yaml", "hours:\n", "times:\n", "flows.yaml:11: times: no intent starts this flow"),
        (
            "replies.yaml",
            "{pizza} is on its way",
            "{colour} is on its way",
            "replies.yaml:13: ordered: no flow fills the slot 'colour'",
        ),
        (
            "replies.yaml",
            "hours: { en:",
            "hours: { ru:",
            "replies.yaml:14: hours: nothing for the language 'en'",
        ),
        (
            "replies.yaml",
            "ask_size: {",
            "ask_size: { buttons: sizes,",
            "replies.yaml:10: ask_size.buttons: there is no menu 'sizes'",
        ),
        (
            "tests/order.yaml",
            "intent: order",
            "intent: ordering",
            "orders: there is no intent 'ordering'",
        ),
    ],
)
def test_complaints_name_file_line_and_field(
    tmp_path: Path, file: str, old: str, new: str, complaint: str
) -> None:
    folder = write(tmp_path)
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), "utf-8")
    with pytest.raises(PackError) as caught:
        load_pack(folder)
    assert f"pizza/{complaint}" in str(caught.value) or complaint in str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    changes = {"domain.yaml": FILES["domain.yaml"].replace("ended: greeting", "ended: x")}
    changes["intents/hours.yaml"] = "intent: hours\n"
    with pytest.raises(PackError) as caught:
        load_packs(write(tmp_path, **changes, **{"flows.yaml": "a: {steps: []}"}).parent)
    assert len(caught.value.problems) == 2  # the cross-checks wait until the files are readable


def test_a_missing_file_is_a_complaint(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"pizza/domain\.yaml:1: the file is missing"):
        load_pack(write(tmp_path, **{"domain.yaml": None}))


def test_yaml_words_stay_words(tmp_path: Path) -> None:
    """YAML 1.1 reads a bare `no` as false and 12:30 as 750."""
    deny = "intent: deny\nutterances: { en: [no, off, 12:30, 2026-08-03] }\n"
    pack = load_pack(write(tmp_path, **{"intents/deny.yaml": deny}))
    assert pack.intents["deny"].utterances["en"] == ("no", "off", "12:30", "2026-08-03")


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write(tmp_path))]) == 0
    assert main(["check", str(write(tmp_path / "b", **{"domain.yaml": None}))]) == 1
    capsys.readouterr()
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema()
    assert "collect" in json.dumps(printed["flows.yaml"])


def test_an_open_question_reads_the_words_its_own_way() -> None:
    pack = load_pack(HOME / "domains" / "support")
    (usual,) = EntityFinder(spec_of(pack)).find("15000", "en")
    (asked,) = pack.read("money", "15000", "en", date(2026, 11, 21))
    assert (usual.entity, asked.entity) == ("order_number", "money")
    (day,) = pack.read("date", "yesterday", "en", date(2026, 11, 21))
    assert day.value == "2026-11-20"


@pytest.mark.parametrize("name", ["horoscope", "support"])
def test_the_packs_of_the_house(name: str) -> None:
    """Fifteen utterances an intent and language, none twice; every span is found again."""
    pack = load_pack(HOME / "domains" / name)
    finder = EntityFinder(json.loads(json.dumps(spec_of(pack))))
    for language in pack.languages:
        lists = pack_lists(pack, language)
        seen: dict[str, str] = {}
        for intent, spec in pack.intents.items():
            assert len(set(spec.utterances[language])) >= 15, (intent, language)
        for intent, template in pack.utterances(language):
            for sample in template.expand(lists, limit=20):
                key = sample.text.casefold()
                assert seen.setdefault(key, intent) == intent, f"{sample.text} is in two intents"
                found = [(f.entity, f.start, f.end) for f in finder.find(sample.text, language)]
                assert {(s.entity, s.start, s.end) for s in sample.spans} <= set(found), sample
        assert to_jsgf(name, (t for _, t in pack.utterances(language)), lists).count("\n") > 3


def test_the_menu_of_the_horoscope() -> None:
    pack = load_pack(HOME / "domains" / "horoscope")
    assert pack.menu == "elements"
    opened = [button.menu for row in pack.menus["elements"].buttons for button in row]
    assert opened == ["fire", "earth", "air", "water"]
    for menu in opened:
        assert menu is not None
        *signs, (back,) = pack.menus[menu].buttons
        assert sum(map(len, signs)) == 3
        assert back.back
        assert back.title == {"en": "Back", "ru": "Назад"}
        assert pack.parent(menu) == "elements"
    assert pack.pressed("назад") == back
    fire = pack.pressed("🔥 Огонь")
    assert fire is not None
    assert fire.menu == "fire"
    assert pack.pressed("гороскоп") is None


def test_a_birth_date_gives_the_sign() -> None:
    sign = load_pack(HOME / "domains" / "horoscope").entities["sign"]
    assert sign.by_date("1990-08-03") == "leo"
    assert sign.by_date("2026-01-19") == sign.by_date("2026-12-22") == "capricorn"
    assert sign.by_date("2024-02-29") == "pisces"
    assert sign.by_date("nonsense") is None
    days = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 30)]
    assert all(sign.by_date(day) for day in days if day != "2024-02-30")
