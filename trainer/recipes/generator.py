"""The embedded generator: a small Llama-shaped decoder that learns a pack's phrase grammar.

    python -m trainer.recipes.generator --out models/generator/1

Draws texts from the grammar of `<pack>/corpus/`, trains a BPE vocabulary and the decoder on one
thread, and exports 8-bit weights with a KV cache (onnxruntime-genai's builder; served by plain
onnxruntime). The prompt is a row of control tokens (`<|en|><|love|><|today|><|bright|>`), the text
follows, `<|end|>` closes it. `config.json` tells the service the shapes, the prompt, the
placeholders that code fills and the limits of its filter.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from govor.repository import write_manifest
from trainer.corpus import Grammar, Plan, read_grammar, read_plan

CARD = """# {name} generator, version {version}

A decoder of {millions:.1f} million parameters that has learnt the phrase grammar of
`{corpus}` and nothing else: it writes variations of phrases that we wrote by
hand. It knows no facts, follows no instructions and does not talk; what it says of the stars is
meant as entertainment. Neither the texts nor the weights come from a collection of others.

- Languages: {languages}. Asked by control tokens: {prompt}.
- Trained on {texts} texts drawn from the grammar (perplexity a token, held out: {perplexity}).
- Names that must not be wrong are placeholders ({placeholders}): code fills them.
- 8-bit weights (MatMulNBits), made by `{recipe}`; params and numbers are in `manifest.json`.
- Licence: {licence}, weights, vocabulary and grammar alike.
"""

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"


class Params(BaseModel):
    """Measured on one thread of an EPYC 9004: see docs/experiments.md."""

    texts: int = 30_000
    """Texts drawn for each language."""
    held_out: int = 300
    """Texts a language that are not trained on, for the perplexity."""
    vocabulary: int = 4096
    width: int = 256
    layers: int = 5
    heads: int = 4
    feed_forward: int = 704
    context: int = 512
    max_tokens: int = 256
    """What the service gives when a request does not say; the longest text has about 180."""
    batch: int = 16
    steps: int = 3200
    learning_rate: float = 1.5e-3
    warmup: int = 100
    weight_decay: float = 0.05
    seed: int = 7
    threads: int = 1
    minutes: float = 90.0
    """The training stops with an error past this: a slow machine should say so."""


@dataclass(frozen=True)
class Prepared:
    """Token rows `[control tokens, text, end]`, in a seeded order, and what they were made of."""

    plan: Plan
    tokenizer: Any
    train: list[list[int]]
    held_out: list[list[int]]
    floor: dict[str, float]
    """Nats a text of the held-out texts, by language: the grammar's own entropy."""
    digest: str


def prepare(corpus: Path, params: Params) -> Prepared:
    """Draws the texts and trains the vocabulary on them."""
    plan = read_plan(corpus)
    train, held_out, floor = sample(corpus, params)
    tokenizer = _vocabulary(train, plan, params.vocabulary)
    return Prepared(
        plan=plan,
        tokenizer=tokenizer,
        train=[encoding.ids for encoding in tokenizer.encode_batch(train)],
        held_out=[encoding.ids for encoding in tokenizer.encode_batch(held_out)],
        floor=floor,
        digest=_digest(corpus),
    )


def sample(corpus: Path, params: Params) -> tuple[list[str], list[str], dict[str, float]]:
    """Rows to train on (shuffled), rows held out (by language), and the latter's nats a text.

    The same params draw the same rows, so that what was trained on can be told from the manifest.
    """
    rng = random.Random(params.seed)
    train: list[str] = []
    held_out: list[str] = []
    floor = {}
    for language in read_plan(corpus).fields["language"]:
        grammar = read_grammar(corpus, language)
        rows = [_draw(grammar, rng) for _ in range(params.texts + params.held_out)]
        train += [row for row, _ in rows[params.held_out :]]
        held_out += [row for row, _ in rows[: params.held_out]]
        floor[language] = sum(nats for _, nats in rows[: params.held_out]) / params.held_out
    rng.shuffle(train)
    return train, held_out, floor


def _draw(grammar: Grammar, rng: random.Random) -> tuple[str, float]:
    """A training row: control tokens, text, end; and the nats of the text."""
    plan = grammar.plan
    choices = plan.fields | plan.draws
    values = {key: rng.choice(choices[key]) for key in plan.prompt} | {"language": grammar.language}
    text = grammar.draw(rng, values)
    prompt = "".join(f"<|{values[key]}|>" for key in plan.prompt)
    return prompt + text.text + END, text.nats


def _vocabulary(texts: list[str], plan: Plan, size: int) -> Any:
    """BPE over words with `▁` for the space before them; control tokens and placeholders whole.

    Whole characters rather than bytes, so that a streamed token is never half a letter.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    choices = plan.fields | plan.draws
    special = [PAD, END, UNKNOWN]
    special += [f"<|{value}|>" for key in plan.prompt for value in choices[key]]
    special += list(plan.tokens())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _digest(corpus: Path) -> str:
    """SHA-256 of the corpus' files, in the order of their names."""
    files = sorted(file for file in corpus.iterdir() if file.suffix in (".txt", ".yaml"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def train(prepared: Prepared, params: Params) -> Any:
    """A `LlamaForCausalLM` trained on the rows: AdamW, warm-up and cosine, bf16 autocast."""
    import torch

    torch.manual_seed(params.seed)
    torch.set_num_threads(params.threads)
    model = _decoder(prepared, params)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        params.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=params.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, params))
    started = time.monotonic()
    losses: list[float] = []
    for step, rows in enumerate(_batches(prepared.train, params), 1):
        loss = _loss(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if step % 100 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step}: loss {np.mean(losses[-100:]):.3f}, {minutes:.1f} min", flush=True)
            if minutes > params.minutes:
                raise TimeoutError(f"{step} of {params.steps} steps took {minutes:.0f} minutes")
    return model.eval()


def _decoder(prepared: Prepared, params: Params) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = prepared.tokenizer
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=params.width,
        intermediate_size=params.feed_forward,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=params.context,
        bos_token_id=tokenizer.token_to_id(END),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def _rate(step: int, params: Params) -> float:
    """The learning rate's factor: linear warm-up, then a cosine to nothing."""
    if step < params.warmup:
        return (step + 1) / params.warmup
    done = (step - params.warmup) / max(1, params.steps - params.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batches(rows: list[list[int]], params: Params) -> Iterator[list[list[int]]]:
    """`steps` batches of rows of like length (windows of 50 batches are sorted, then shuffled)."""
    rng = random.Random(params.seed)
    window = 50 * params.batch
    made = 0
    while True:
        order = rng.sample(range(len(rows)), len(rows))
        for start in range(0, len(order), window):
            part = sorted(order[start : start + window], key=lambda i: len(rows[i]))
            batches = [part[i : i + params.batch] for i in range(0, len(part), params.batch)]
            rng.shuffle(batches)
            for batch in batches:
                yield [rows[i] for i in batch]
                made += 1
                if made == params.steps:
                    return


def _loss(model: Any, rows: list[list[int]]) -> Any:
    """Mean cross-entropy of the tokens of a batch, prompt included (it costs nothing)."""
    import torch

    length = max(map(len, rows))
    ids = torch.full((len(rows), length), model.config.pad_token_id)
    labels = torch.full((len(rows), length), -100)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
    with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
        return model(input_ids=ids, labels=labels, use_cache=False).loss


def evaluate(model: Any, prepared: Prepared, params: Params) -> dict[str, float]:
    """Nats a held-out text, by language, beside the grammar's own entropy (`floor_`)."""
    import torch

    metrics = {}
    for index, (language, floor) in enumerate(prepared.floor.items()):
        first = index * params.held_out
        rows = prepared.held_out[first : first + params.held_out]
        prompt = len(prepared.plan.prompt)
        with torch.no_grad():
            nats = [_text_nats(model, row, prompt) for row in rows]
        tokens = sum(len(row) - prompt for row in rows)
        metrics[f"nats_{language}"] = sum(nats) / len(nats)
        metrics[f"floor_{language}"] = floor
        metrics[f"perplexity_{language}"] = math.exp(sum(nats) / tokens)
        metrics[f"tokens_{language}"] = tokens / len(rows)
    return metrics


def _text_nats(model: Any, row: list[int], prompt: int) -> float:
    import torch

    ids = torch.tensor([row])
    logits = model(input_ids=ids, use_cache=False).logits[0, prompt - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, prompt:], reduction="sum"))


def export(model: Any, prepared: Prepared, params: Params, out: Path) -> None:
    """Writes `model.onnx` (one file, 8-bit weights), `tokenizer.json` and `config.json`."""
    import onnx
    from transformers import PreTrainedTokenizerFast

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        source, built = Path(name) / "torch", Path(name) / "onnx"
        model.save_pretrained(source)
        wrap: Any = PreTrainedTokenizerFast
        wrap(tokenizer_object=prepared.tokenizer).save_pretrained(source)
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        options = ["-i", str(source), "-o", str(built), "-p", "int8", "-e", "cpu"]
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        subprocess.run(
            [*builder, *options, "-c", name], check=True, stdout=subprocess.DEVNULL, env=environment
        )
        onnx.save(onnx.load(built / "model.onnx"), out / "model.onnx")
    prepared.tokenizer.save(str(out / "tokenizer.json"))
    config = service_config(prepared, params)
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    (out / "config.json").write_text(text, "utf-8")


def service_config(prepared: Prepared, params: Params) -> dict[str, Any]:
    """What the service reads: the form is that of `services.generator.backends.config.py`."""
    plan, tokenizer = prepared.plan, prepared.tokenizer
    limits = plan.limits
    return {
        "decoder": {
            "layers": params.layers,
            "heads": params.heads,
            "head_dim": params.width // params.heads,
            "vocabulary": tokenizer.get_vocab_size(),
            "context": params.context,
            "eos": [tokenizer.token_to_id(END)],
        },
        "max_tokens": params.max_tokens,
        "prompt": [f"<|{{{key}}}|>" for key in plan.prompt],
        "defaults": plan.defaults,
        "draws": plan.draws,
        "placeholders": {
            token: placeholder.model_dump() for token, placeholder in plan.tokens().items()
        },
        "filter": {
            "min_chars": limits.min_chars,
            "max_chars": limits.max_chars,
            "endings": limits.endings,
            "names": limits.names.model_dump(),
        },
    }


def run(corpus: Path, out: Path, params: Params | None = None) -> dict[str, float]:
    """The whole recipe: the version's folder with its manifest; returns the metrics."""
    params = params or Params()
    prepared = prepare(corpus, params)
    tokens = sum(map(len, prepared.train))
    print(f"{len(prepared.train)} texts, {tokens} tokens, floor {prepared.floor}", flush=True)
    model = train(prepared, params)
    metrics = evaluate(model, prepared, params)
    export(model, prepared, params, out)
    plan = prepared.plan
    (out / "README.md").write_text(card(model, prepared, params, metrics, corpus, out), "utf-8")
    write_manifest(
        out,
        model="generator",
        version=int(out.name),
        backend="decoder",
        languages=plan.fields["language"],
        fields=plan.fields,
        description="A small decoder that has learnt a phrase grammar of our own.",
        recipe="trainer/recipes/generator.py",
        params=params.model_dump(),
        datasets=[
            {
                "name": f"{corpus.parent.name} phrase grammar",
                "source": plan.source,
                "licence": plan.licence,
                "digest": prepared.digest,
            }
        ],
        metrics={name: round(value, 3) for name, value in metrics.items()},
        licence=plan.licence,
    )
    return metrics


def card(
    model: Any,
    prepared: Prepared,
    params: Params,
    metrics: dict[str, float],
    corpus: Path,
    out: Path,
) -> str:
    """The model card: what the version is, and is not."""
    plan = prepared.plan
    languages = plan.fields["language"]
    return CARD.format(
        name=corpus.parent.name.capitalize(),
        version=out.name,
        millions=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        corpus="/".join(corpus.parts[-3:]),
        languages=", ".join(languages),
        prompt=", ".join(plan.prompt),
        texts=len(prepared.train),
        perplexity=", ".join(f"{metrics[f'perplexity_{code}']:.2f} {code}" for code in languages),
        placeholders=", ".join(plan.placeholders),
        recipe="python -m trainer.recipes.generator",
        licence=plan.licence,
    )


def main() -> None:
    home = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--out", type=Path, default=home / "models/generator/1")
    parser.add_argument("--corpus", type=Path, default=home / "domains/horoscope/corpus")
    parser.add_argument("params", nargs="*", metavar="PARAM=VALUE")
    arguments = parser.parse_args()
    params = Params.model_validate(dict(item.split("=", 1) for item in arguments.params))
    for name, value in run(arguments.corpus, arguments.out, params).items():
        print(f"{name} {value:.3f}")


_Raw = argparse.RawDescriptionHelpFormatter


if __name__ == "__main__":
    main()
