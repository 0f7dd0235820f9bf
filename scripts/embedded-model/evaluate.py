#!/usr/bin/env python3
"""How good the embedded model is, on text and problems it never saw.

    python evaluate.py MODEL HELDOUT.jsonl.gz [--out evaluation.json]

Held-out loss of every stream, arithmetic and chat answers (greedy), and whether 200 sampled continuations stay in the
language of their prompts. The last needs `pip install -r requirements.txt` (py3langid).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
from collections import defaultdict
from pathlib import Path

import torch
from py3langid import classify, set_languages
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from exchanges import LANGUAGES, Problem, answer_in, exchange, problem, sum_line

CONTEXT = 512
SEED = 11
# More than the six, so that an answer can be wrong in a language the model was never taught.
CANDIDATES = ["en", "zh", "ru", "fr", "de", "ko", "es", "it", "nl", "pt", "uk", "ja", "sv", "pl"]
PROMPT_TOKENS, CONTINUATION_TOKENS, CONTINUATIONS, TEMPERATURE = 24, 60, 200, 0.8
PROBLEMS_A_LANGUAGE, SUMS, EXCHANGES_A_LANGUAGE = 40, 240, 20


def read(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def stream_of(row: dict) -> str:
    return "chat" if row["source"] == "generated-chat" else row["language"]


@torch.no_grad()
def losses(model, tokenizer, rows: list[dict]) -> dict[str, dict]:
    """Nats a token (document ends included) and bits a byte (without them), documents packed as in training."""
    texts = defaultdict(list)
    for row in rows:
        texts[stream_of(row)].append(row["text"])
    end = tokenizer.pad_token_id
    result = {}
    for name, documents in sorted(texts.items()):
        ids = [token for text in documents for token in (*tokenizer(text, verbose=False)["input_ids"], end)]
        ids = torch.tensor(ids[: (len(ids) - 1) // CONTEXT * CONTEXT + 1])
        inputs, targets = ids[:-1].view(-1, CONTEXT), ids[1:].view(-1, CONTEXT)
        nats = []
        for at in range(0, len(inputs), 8):
            logits = model(input_ids=inputs[at : at + 8].to(model.device)).logits.float()
            nats.append(
                functional.cross_entropy(logits.flatten(0, 1).cpu(), targets[at : at + 8].flatten(), reduction="none")
            )
        nats = torch.cat(nats).double()
        inner = targets.flatten() != end
        size = len(tokenizer.decode(targets.flatten()[inner]).encode())
        result[name] = {
            "nats_per_token": round(nats.mean().item(), 4),
            "bits_per_byte": round(nats[inner].sum().item() / math.log(2) / size, 4),
            "tokens": nats.numel(),
        }
    return result


@torch.no_grad()
def complete(model, tokenizer, prompts: list[str], tokens: int, temperature: float | None = None) -> list[str]:
    """Continuations of the prompts, greedy unless a temperature is given; special tokens are left out."""
    tokenizer.padding_side = "left"
    texts = []
    for at in range(0, len(prompts), 40):
        batch = tokenizer(prompts[at : at + 40], return_tensors="pt", padding=True).to(model.device)
        sampling = (
            dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
        )
        out = model.generate(**batch, max_new_tokens=tokens, pad_token_id=tokenizer.pad_token_id, **sampling)
        texts += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def as_prompt(tokenizer, question: str) -> str:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


def accuracy(model, tokenizer, cases: list[Problem]) -> dict[str, float]:
    answers = complete(model, tokenizer, [as_prompt(tokenizer, case.question) for case in cases], tokens=40)
    right = defaultdict(list)
    for case, answer in zip(cases, answers, strict=True):
        for key in ("all", case.language, case.kind):
            right[key].append(answer_in(answer) == case.answer)
    return {key: round(sum(marks) / len(marks), 3) for key, marks in sorted(right.items())} | {"n": len(cases)}


def arithmetic(model, tokenizer) -> dict:
    """Answers to problems whose operands were held out, and beside them to problems from the training side."""
    result = {}
    for side, heldout in (("heldout", True), ("trained", False)):
        rng = random.Random(f"{SEED}-{side}")
        result[f"chat_{side}"] = accuracy(
            model,
            tokenizer,
            [problem(rng, language, heldout) for language in LANGUAGES for _ in range(PROBLEMS_A_LANGUAGE)],
        )
        lines = [sum_line(rng, heldout) for _ in range(SUMS)]
        # One solved line of the training side first, so that the form of the list is clear.
        prompts = [sum_line(rng) + "\n" + line.split("=")[0] + "=" for line in lines]
        answers = complete(model, tokenizer, prompts, tokens=6)
        right = [
            answer.split("\n")[0].strip() == line.split("=")[1].strip()
            for answer, line in zip(answers, lines, strict=True)
        ]
        result[f"plain_{side}"] = {"all": round(sum(right) / SUMS, 3), "n": SUMS}
    return result


def identifier():
    set_languages(CANDIDATES)
    return lambda text: classify(text)[0]


def chat(model, tokenizer, identify) -> dict:
    """Held-out questions that are not arithmetic: is the answer right to the letter, is it in the right language?"""
    rng = random.Random(SEED)
    cases = []
    for language in LANGUAGES:
        # Distinct questions: few are held out, and one drawn often would count often.
        asked: dict[str, str] = {}
        while len(asked) < EXCHANGES_A_LANGUAGE:
            asked.update([exchange(rng, language, heldout=True)])
        cases += [(language, question, answer) for question, answer in asked.items()]
    answers = complete(model, tokenizer, [as_prompt(tokenizer, question) for _, question, _ in cases], tokens=40)
    exact = [answer.strip() == right for answer, (_, _, right) in zip(answers, cases, strict=True)]
    # A lone name or number has no language; only answers with a few letters are judged.
    judged = [
        (identify(answer), language)
        for answer, (language, _, _) in zip(answers, cases, strict=True)
        if sum(map(str.isalpha, answer)) >= (5 if language in ("zh", "ko") else 15)
    ]
    return {
        "exact": round(sum(exact) / len(exact), 3),
        "in_language": round(sum(a == b for a, b in judged) / max(1, len(judged)), 3),
        "n": len(cases),
        "n_language": len(judged),
        "examples": [
            {"question": q, "answer": a.strip()}
            for (_, q, _), a in list(zip(cases, answers, strict=True))[:: len(cases) // 12]
        ],
    }


def continuations(model, tokenizer, rows: list[dict], identify) -> dict:
    """Sampled continuations of held-out openings, and the share whose own text is in the prompt's language."""
    rng = random.Random(SEED)
    pool = {language: [] for language in LANGUAGES}
    for row in rows:
        ids = tokenizer(row["text"], verbose=False)["input_ids"]
        if stream_of(row) in pool and len(ids) >= PROMPT_TOKENS + CONTINUATION_TOKENS:
            start = rng.randrange(len(ids) - PROMPT_TOKENS - CONTINUATION_TOKENS + 1)
            middle = start + PROMPT_TOKENS
            cut = tokenizer.decode(ids[start:middle])
            pool[row["language"]].append(
                (cut.strip("\ufffd"), tokenizer.decode(ids[middle : middle + CONTINUATION_TOKENS]))
            )
    wanted = [language for _ in range(CONTINUATIONS) for language in LANGUAGES][:CONTINUATIONS]
    cases = [(language, *rng.choice(pool[language])) for language in wanted]
    torch.manual_seed(SEED)
    sampled = complete(model, tokenizer, [prompt for _, prompt, _ in cases], CONTINUATION_TOKENS, TEMPERATURE)
    stays = defaultdict(list)
    for (language, _, _), text in zip(cases, sampled, strict=True):
        stays[language].append(identify(text) == language)
    real = [identify(true) == language for language, _, true in cases]
    every = [mark for marks in stays.values() for mark in marks]
    return {
        "n": len(every),
        "temperature": TEMPERATURE,
        "stay": round(sum(every) / len(every), 3),
        "stay_by_language": {language: f"{sum(marks)}/{len(marks)}" for language, marks in stays.items()},
        "identifier_on_real_text": round(sum(real) / len(real), 3),
        "samples": [{"language": cases[at][0], "prompt": cases[at][1], "continuation": sampled[at]} for at in range(6)],
    }


def evaluate(model_folder: Path, heldout: Path) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    rows = read(heldout)
    identify = identifier()
    return {
        "parameters": model.num_parameters(),
        "heldout": losses(model, tokenizer, rows),
        "arithmetic": arithmetic(model, tokenizer),
        "chat": chat(model, tokenizer, identify),
        "continuations": continuations(model, tokenizer, rows, identify),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("heldout", type=Path)
    parser.add_argument("--out", type=Path, help="where the results go as JSON (default: MODEL/evaluation.json)")
    arguments = parser.parse_args()
    results = evaluate(arguments.model, arguments.heldout)
    (arguments.out or arguments.model / "evaluation.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print(json.dumps(results, indent=1, ensure_ascii=False))
