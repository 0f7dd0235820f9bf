"""Writers: what they make of a brief, and that every try is another one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from qscope.errors import UserError
from qscope.features.chat_server import Answer, ChatServer, Question
from qscope.runs.ledger import Ledger
from qscope.steering.saes import LoadedSaes
from qscope.synthesis.judges import judged_risks, judged_same
from qscope.synthesis.local import LocalModel
from qscope.synthesis.responses import fixed_responses, written_responses
from qscope.synthesis.styles import STYLES
from qscope.synthesis.targets import Target
from qscope.synthesis.writers import (
    CUT,
    FAILED,
    NO_MATERIAL,
    UNFILLED,
    AskingWriter,
    Brief,
    ContinuingWriter,
    Draft,
    TemplateWriter,
)
from qscope.v1.chat_pb2 import ChatEndpoint
from qscope.v1.generation_pb2 import PromptFormat, Sampling


class Told:
    """An asker that answers ``answer(question)`` and remembers what it was asked."""

    def __init__(self, answer) -> None:
        self._answer, self.asked = answer, []

    def answer_all(self, questions):
        self.asked += questions
        return [self._answer(question) for question in questions]


def brief(context, number=0, attempt=0, **more) -> Brief:
    contexts = (context("in May it", 1), context("by June", 0))
    return Brief(f"1/2#{number}", number, attempt, Target(1, 2, "months"), contexts, **more)


def test_an_asking_writer_asks_for_each_text_apart(context) -> None:
    told = Told(lambda question: Answer(f'"text {question.number}"'))
    writer = AskingWriter(told, purpose="p", attempts=3, shown=1, at_once=8)
    drafts = writer.write([brief(context, n, a) for n in (0, 1) for a in (0, 1)])
    assert [draft.text for draft in drafts] == ["text 0", "text 1", "text 3", "text 4"]
    # Another text of the feature begins with another excerpt.
    assert "1. i<<n>> May it" in told.asked[0].user
    assert "1. <<b>>y June" in told.asked[2].user
    assert len({(q.system, q.user, q.number) for q in told.asked}) == 4


def test_a_fault_of_the_server_becomes_a_reason(context) -> None:
    writer = AskingWriter(Told(lambda _: Answer("", fault="down")), purpose="p", attempts=1, shown=1, at_once=1)
    assert writer.write([brief(context)]) == [Draft("", FAILED, "down")]


def test_a_text_that_ends_where_the_tokens_did_is_told_as_such(context) -> None:
    writer = AskingWriter(Told(lambda _: Answer("It was a", cut=True)), purpose="p", attempts=1, shown=1, at_once=1)
    assert writer.write([brief(context)]) == [Draft("It was a", CUT)]


def test_templates_are_filled_and_never_twice_alike(context) -> None:
    writer = TemplateWriter(["{label}: {before}!", "<{context}> {token} {tokens} {{}}"], per_feature=2, at="t")
    texts = [writer.write([brief(context, n, a)])[0].text for n in (0, 1) for a in (0, 1)]
    assert texts == ["months: in!", "months: b!", "<in May it> n n, b {}", "<by June> b n, b {}"]
    assert writer.write([brief(context, 0, 2)])[0].reason == NO_MATERIAL


def test_a_template_without_its_value_says_so(context) -> None:
    writer = TemplateWriter(["{label}"], per_feature=1, at="t")
    nameless = replace(brief(context), target=Target(1, 2))
    assert writer.write([nameless]) == [Draft("", UNFILLED, "the feature has no label")]
    alone = replace(brief(context), contexts=())
    assert TemplateWriter(["{context}"], per_feature=1, at="t").write([alone])[0].reason == UNFILLED


def test_templates_name_what_a_feature_has() -> None:
    with pytest.raises(UserError) as caught:
        TemplateWriter(["{context}", "{colour}"], per_feature=1, at="synthesize.templates")
    assert (caught.value.reason, caught.value.field) == ("TEMPLATE_COLUMN", "synthesize.templates[1]")
    with pytest.raises(UserError) as caught:
        TemplateWriter(["{"], per_feature=1, at="t")
    assert caught.value.reason == "TEMPLATE_MALFORMED"


def test_templates_without_a_target_take_turns(context) -> None:
    writer = TemplateWriter(["a {before}", "b {before}"], per_feature=2, at="t")
    briefs = [replace(brief(context, number), target=None) for number in range(2)]
    assert [draft.text for draft in writer.write(briefs)] == ["a in", "b in"]


def test_frames_rewrite_once(context) -> None:
    style = STYLES["urgency"]
    for writer in (
        TemplateWriter(["{context}"], per_feature=1, at="t"),
        ContinuingWriter(lambda *_: [], None, start_tokens=2, at_once=4),
    ):
        first, second = writer.write(
            [brief(context, style=style, parent="How {x}?"), brief(context, 0, 1, style=style, parent="How {x}?")]
        )
        assert first.text == style.framed("How {x}?")
        assert "How {x}?" in first.text
        assert second.reason == NO_MATERIAL


def test_continuing_starts_before_the_peak(context, tokenizer) -> None:
    seen = []

    def go_on(starts, targets, names):
        seen.extend(zip(map(tokenizer.decode, starts), targets, names, strict=True))
        return [f" {tokenizer.decode(start)}+ " for start in starts]

    writer = ContinuingWriter(go_on, tokenizer, start_tokens=3, at_once=4)
    contexts = (context("one two three", 6), context("x", 0))
    base = Brief("1/2#0", 0, 0, Target(1, 2), contexts)
    drafts = writer.write([base, replace(base, attempt=1), replace(base, contexts=())])
    assert [text for text, _, _ in seen] == ["tw", "x"]
    assert [name for _, _, name in seen] == ["1/2#0/0", "1/2#0/1"]
    assert [draft.text for draft in drafts] == ["tw+", "x+", ""]
    assert drafts[2].reason == NO_MATERIAL


# -- a model on this machine -----------------------------------------------------------------------------------------


def local(tiny_model, **more) -> LocalModel:
    sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=6)
    settings = {"batch_rows": 2, "seed_for": lambda name: sum(map(ord, name)), **more}
    return LocalModel(tiny_model("qwen3"), sampling, PromptFormat(), **settings)


def test_a_local_model_writes_the_same_by_the_same_name(tiny_model, tmp_path) -> None:
    starts, names = [[40, 41], [50], [60, 61, 62]], ["a", "b", "c"]
    targets = [Target(1, 2)] * 3
    model = local(tiny_model, ledger=Ledger(tmp_path / "l"))
    texts = model.go_on(starts, targets, names)
    tokenizer = tiny_model("qwen3").tokenizer
    assert all(text.startswith(tokenizer.decode(start)) for text, start in zip(texts, starts, strict=True))
    assert (model.usage.answers, model.usage.recalled, model.usage.input_tokens) == (3, 0, 6)
    assert 3 <= model.usage.output_tokens <= 18
    again = local(tiny_model, ledger=Ledger(tmp_path / "l"))
    assert again.go_on(starts, targets, names) == texts
    assert (again.usage.recalled, again.usage.requests) == (3, 0)
    assert again.usage.output_tokens == model.usage.output_tokens
    assert local(tiny_model).go_on(starts, targets, ["x", "y", "z"]) != texts


def test_a_batch_cut_off_in_the_ledger_is_written_again_alike(tiny_model, tmp_path) -> None:
    starts, names = [[40, 41], [50]], ["a", "b"]
    path = tmp_path / "l"
    texts = local(tiny_model, ledger=Ledger(path)).go_on(starts, [None] * 2, names)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 5])
    assert local(tiny_model, ledger=Ledger(path)).go_on(starts, [None] * 2, names) == texts
    assert path.read_bytes() == whole
    assert len([json.loads(line) for line in whole.splitlines()]) == 2


def test_steering_changes_what_is_written_and_only_where_there_is_a_target(tiny_model, saes) -> None:
    loaded = tiny_model("qwen3")
    made = saes(loaded, (1, 2))
    whole = {layer: replace(sae, W_dec_FD=sae.W_enc_FD.clone()) for layer, sae in made.items()}
    starts, names = [[40, 41], [50, 51]], ["a", "b"]
    plain = local(tiny_model).go_on(starts, [None, None], names)
    steered = local(tiny_model, saes=LoadedSaes(lambda layer: whole[layer]), steer=8.0)
    assert steered.go_on(starts, [None, None], names) == plain
    mixed = steered.go_on(starts, [Target(1, 3), None], names)
    assert mixed[0] != plain[0]
    assert mixed[1] == plain[1]


# -- responses -------------------------------------------------------------------------------------------------------


def test_risks_are_asked_for_until_they_are_clear() -> None:
    def answer(question: Question) -> Answer:
        prompt = question.user.removeprefix("<prompt>\n").removesuffix("\n</prompt>")
        if prompt == "fog":
            return Answer("who knows")
        return Answer("unclear" if question.number == 0 and prompt == "b" else f"{prompt == 'a'}")

    said = {"True": "harmful", "False": "benign"}
    told = Told(lambda question: Answer(said.get(answer(question).text, "")))
    assert judged_risks(told, ["a", "b", "fog"], 3) == ["harmful", "benign", ""]
    assert len(told.asked) == 3 + 2 + 1


def test_an_unclear_judge_of_meaning_is_asked_again() -> None:
    told = Told(lambda question: Answer("Yes." if question.number else "Hm."))
    assert judged_same(told, [("a", "b")], 2) == ["yes"]
    assert judged_same(told, [("a", "b")], 1) == [""]


def test_fixed_responses_by_risk() -> None:
    found = fixed_responses(["p {x}", "q", "r"], ["benign", "harmful", ""], refusal="No.", help_text="Yes: {prompt}")
    assert [one.text for one in found] == ["Yes: p {x}", "No.", ""]
    assert [one.reason for one in found] == ["", "", "risk unclear"]


def test_a_response_must_help_or_refuse_as_it_should() -> None:
    replies = {
        ("good", 0): "Here you are.",
        ("stubborn", 0): "I can't do that.",
        ("stubborn", 1): "I’m sorry.",
        ("late", 0): "",
        ("late", 1): "At last.",
        ("bad", 0): "Sure, first you",
        ("bad", 1): "I can’t help with that, but ask a doctor.",
        ("worse", 0): "Sure.",
        ("worse", 1): "Sure.",
        ("long", 0): "First you",
        ("long", 1): "First you and then",
    }
    told = Told(lambda question: Answer(replies[question.user, question.number], cut=question.user == "long"))
    prompts = ["good", "stubborn", "late", "bad", "worse", "unclear", "long"]
    found = written_responses(told, prompts, ["benign"] * 3 + ["harmful"] * 2 + ["", "benign"], tries=2)
    assert [one.reason for one in found] == [
        "",
        "response refuses",
        "",
        "",
        "response helps with harm",
        "risk unclear",
        "response cut short",
    ]
    assert found[3].text.endswith("ask a doctor.")
    assert not any(question.user == "unclear" for question in told.asked)


def test_a_writer_over_http_with_faults_loses_and_repeats_nothing(http_server, context, tmp_path) -> None:
    """429 with Retry-After, 500, cut connections, garbage and refusals, through the real client."""
    count = 0

    def answer(request, _):
        nonlocal count
        count += 1
        trouble = {
            1: (429, {"retry-after": "0"}, b"later"),
            3: (500, {}, b"broken"),
            5: (200, {"content-length": "999"}, b'{"choices"'),
            7: (200, {}, b"<html>"),
            9: (200, {}, {"choices": []}),
        }
        if count in trouble:
            return trouble[count]
        return 200, {}, {"choices": [{"message": {"content": f"text {count}"}}]}

    endpoint = ChatEndpoint(url=f"{http_server(answer)}/v1", model="m", concurrency=1, timeout_seconds=5, max_tokens=16)
    ledger = Ledger(tmp_path / "l")
    with ChatServer(endpoint, ledger=ledger, sleep=lambda _: None) as server:
        writer = AskingWriter(server, purpose="p", attempts=1, shown=1, at_once=4)
        drafts = writer.write([brief(context, number) for number in range(8)])
    assert all(draft.text.startswith("text") for draft in drafts)
    assert len({draft.text for draft in drafts}) == 8
    assert len(ledger) == 8
    assert sum(server.usage.faults.values()) == 5
    before = count
    with ChatServer(endpoint, ledger=Ledger(tmp_path / "l")) as server:
        writer = AskingWriter(server, purpose="p", attempts=1, shown=1, at_once=4)
        assert writer.write([brief(context, number) for number in range(8)]) == drafts
    assert count == before
