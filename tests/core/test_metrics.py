from __future__ import annotations

import urllib.request

from prometheus_client import ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from govor.metrics import Exporter, Metrics


def test_a_batch_that_all_left_is_a_wait_and_no_run() -> None:
    nlu = Metrics("nlu")
    nlu.observe_batch("nlu", 0, [0.2], 0.0)
    labels = {"service": "nlu", "model": "nlu"}

    def count(name: str) -> float | None:
        return nlu.registry.get_sample_value(f"{name}_count", labels)

    assert count("model_queue_duration_seconds") == 1
    assert not count("model_batch_size")
    assert not count("model_infer_duration_seconds")


def test_what_a_model_is_asked_begins_at_0() -> None:
    tts = Metrics("tts")
    tts.watch_ready("tts-en", lambda: (True, ""))
    for outcome in ("ok", "shed", "error"):
        labels = {"service": "tts", "model": "tts-en", "outcome": outcome}
        assert tts.registry.get_sample_value("model_requests_total", labels) == 0


def test_several_registries_answer_as_one() -> None:
    nlu, tts = Metrics("nlu"), Metrics("tts")
    nlu.observe_request("nlu", "ok", 0.01)
    tts.observe_request("tts-en", "shed", 0.01)
    tts.observe_batch("tts-en", 2, [0.0, 0.001], 0.01)
    nlu.watch_ready("nlu", lambda: (False, "not loaded"))
    nlu.serves("nlu", 1, "ngram")
    nlu.serves("nlu", 2, "ngram")
    exporter = Exporter(
        [nlu.registry, tts.registry, ProcessCollector(registry=None)], "127.0.0.1", 0
    )
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{exporter.port}/metrics", timeout=30
        ) as page:
            text = page.read().decode()
    finally:
        exporter.close()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    assert len(samples) == sum(len(family.samples) for family in families)
    ok = {"service": "nlu", "model": "nlu", "outcome": "ok"}
    assert samples["model_requests_total", tuple(sorted(ok.items()))] == 1
    assert samples["model_ready", (("model", "nlu"), ("service", "nlu"))] == 0
    served = [dict(labels) for (name, labels), _ in samples.items() if name == "model_info"]
    assert [labels["version"] for labels in served] == ["2"]
    assert any(name == "process_resident_memory_bytes" for name, _ in samples)
