"""The model card and the text's card, written from the results beside them, so that no number is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path

from presets import DECAY_MIXTURE, MIXTURE

_NAMES = {"en": "English", "zh": "Chinese", "ru": "Russian", "fr": "French", "de": "German", "ko": "Korean", "chat": "chat", "arithmetic": "arithmetic"}  # fmt: skip


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _table(head: list[str], rows: list[list]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _generated(mixture: dict[str, float]) -> float:
    return mixture["chat"] + mixture["arithmetic"]


def _note(training: dict) -> str:
    """What a run went through that its numbers do not tell."""
    return f". {training['note']}" if training.get("note") else ""


def model_card(training: dict, results: dict, config: dict) -> str:
    losses = _table(
        ["stream", "nats/token", "bits/byte", "held-out tokens", "passes begun"],
        [
            [_NAMES[name], f"{results['heldout'][name]['nats_per_token']:.3f}", f"{results['heldout'][name]['bits_per_byte']:.3f}",
             f"{results['heldout'][name]['tokens']:,}", training["passes"].get(name, 0) + 1]
            for name in _NAMES if name in results["heldout"]
        ],
    )  # fmt: skip
    sums = results["arithmetic"]
    kinds = ["all", "bare", "words", "two", "story", "story2", *("en", "zh", "ru", "fr", "de", "ko")]
    arithmetic = _table(
        ["greedy answers right", *kinds, "n"],
        [
            [label, *(f"{sums[key][kind]:.0%}" if kind in sums[key] else "" for kind in kinds), sums[key]["n"]]
            for label, key in (
                ("chat, held-out operands", "chat_heldout"), ("chat, operands seen in training", "chat_trained"),
                ("list of sums, held-out operands", "plain_heldout"), ("list of sums, operands seen in training", "plain_trained"),
            )
        ],
    )  # fmt: skip
    chat, told = results["chat"], results["continuations"]
    samples = "\n".join(
        f"* **{s['language']}** {_one_line(s['prompt'])} ⟶ {_one_line(s['continuation'])}" for s in told["samples"]
    )
    examples = "\n".join(f"* {_one_line(e['question'])} ⟶ {_one_line(e['answer'])}" for e in chat["examples"])
    stays = ", ".join(f"{_NAMES[language]} {share}" for language, share in told["stay_by_language"].items())
    return f"""---
language: [en, zh, ru, fr, de, ko]
library_name: transformers
pipeline_tag: text-generation
---

# The embedded model of qscope

A Qwen3 (`Qwen3ForCausalLM`) small enough to ship in the repository and real enough to have features worth finding: six languages, chat
exchanges in Qwen's template, small sums. It knows the manuals of free software and little else; it is made for trying
tools on, not for answers anyone relies on.

| | |
| --- | --- |
| parameters | {results["parameters"]:,} (embeddings tied), float32 |
| shape | d_model {config["hidden_size"]}, {config["num_hidden_layers"]} layers, {config["num_attention_heads"]} query and {config["num_key_value_heads"]} key/value heads of {config["head_dim"]}, SwiGLU {config["intermediate_size"]} |
| vocabulary | {config["vocab_size"]:,} byte-level BPE pieces, the last 26 of them Qwen3's special tokens; Qwen's pre-tokenisation (digits one by one), NFC |
| context | {config["max_position_embeddings"]} tokens, RoPE base 1,000,000 |
| training | preset `{training["preset"]}`, {training["tokens"]:,} tokens, {training["steps"]:,} steps, {training["hours"]} hours, seed {training["seed"]}{_note(training)} |
| mixture | six languages, and generated chat and sums: {_generated(MIXTURE):.0%} of the tokens, {_generated(DECAY_MIXTURE):.0%} while the rate decays |
| optimiser | Muon for the hidden matrices, AdamW for embeddings and norms; constant rate, then linear to zero over the last 45 % of the time |

Recipe: `python scripts/embedded-model/recipe.py CACHE --hours 1.6` (two CPU cores) or `--preset gpu`; see scripts/embedded-model/README.md.
`--panel 20` keeps twenty checkpoints of the run on the way.

## Held-out loss

Documents that share no sentence with the training text (deduplicated before the split), packed as in training. Nats count the
document ends, bits a byte do not.

{losses}

## Does it stay in its language?

Of {told["n"]} continuations sampled at temperature {told["temperature"]} (60 tokens after 24 tokens of held-out text, languages in turn), **{told["stay"]:.1%}** are in
the language of their prompt: {stays}. The judge is py3langid choosing among fourteen languages; on the real continuations of the
same prompts it says the prompt's language in {told["identifier_on_real_text"]:.1%} of cases, which is the most a model could score.

{samples}

## Chat

{chat["n"]} held-out questions that are no sums, answered greedily: {chat["exact"]:.1%} equal the expected line to the letter; {chat["in_language"]:.1%} of the
{chat["n_language"]} answers long enough to judge are in the language of the question.

{examples}

The model writes no thinking block of its own; it answers with and without the empty block that `enable_thinking=False` puts in the prompt.

## Arithmetic

Sums and differences of numbers below 100, products of digits. Held-out operands appear nowhere in training, in no wording.

{arithmetic}

## Data and licences

Documentation packages of Debian 12 and generated exchanges; ../text/README.md lists each package, its licence and its share. The text remains under its authors' licences.
"""


def text_card(summary: dict) -> str:
    totals = ", ".join(f"{_NAMES[language]} {count / 1e6:.1f} M" for language, count in summary["characters"].items())
    rows = [
        [s["package"], s["language"], f"{s['characters']:,}", s["licence"]]
        for s in summary["sources"]
        if s["characters"]
    ]
    return f"""# The text of the embedded model

`heldout.jsonl.gz`: documents never trained on. `train.jsonl.gz`: a sample of the training split, not all of which a short run gets to see. Fields `text`, `language`, `source`;
documents of at most 4,000 characters, shuffled, languages interleaved, so that any prefix is a fair sample.

Collected from documentation and message catalogues of Debian 12, in characters after cleaning: {totals}. Chinese and Korean characters carry two to three times as much
as Latin ones. **Korean falls short of 3 M characters**: the Korean documentation found in Debian 12 gives 1.2 M, message catalogues of programs the rest,
and the training sees Korean text more often than the others.

Paragraphs are kept if they are prose in their language (script for zh, ru, ko; function words for en, fr, de); a sentence is kept
once a language. `generated-chat` and `generated-arithmetic` come from scripts/embedded-model/exchanges.py, under the licence of this repository.

Each document remains under the licence of its package. It stands beside the program's code as data (a mere aggregation); copyright holders and full licence texts are in
`/usr/share/doc/PACKAGE/copyright` of the packages.

{_table(["package", "language", "characters", "licence"], rows)}
"""


def write_cards(embedded: Path) -> None:
    model = embedded / "model"
    card = model_card(_read(model / "training.json"), _read(model / "evaluation.json"), _read(model / "config.json"))
    (model / "README.md").write_text(card, encoding="utf-8")
    (embedded / "text" / "README.md").write_text(text_card(_read(embedded / "text" / "sources.json")), encoding="utf-8")
