"""Rows as tokens: what of them is trained on, by the real chat template of Qwen3, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from qscope import embedded
from qscope.errors import UserError
from qscope.posttraining.examples import CUT_OFF, NO_ANSWER, TOO_LONG, UNREADABLE, read_examples, read_prompts, samples
from qscope.v1.generation_pb2 import THINKING_OFF, THINKING_ON, PromptFormat
from qscope.v1.posttraining_pb2 import TrainRows

OFF = PromptFormat(thinking=THINKING_OFF)
CHAT = PromptFormat(chat=True, thinking=THINKING_OFF)


@pytest.fixture(scope="module")
def qwen() -> Any:
    """The embedded model's tokenizer; its chat template is that of Qwen3."""
    return AutoTokenizer.from_pretrained(embedded.model_path())


@pytest.fixture
def rows(tmp_path: Path):
    """``rows(row, ..., field=...)``: a source of these rows."""

    def write(*values: Any, **fields: Any) -> TrainRows:
        path = tmp_path / "rows.jsonl"
        lines = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        path.write_text("\n".join(lines) + "\n")
        return TrainRows(source=str(path), **fields)

    return write


def read(source: TrainRows, tokenizer: Any, fmt: PromptFormat = OFF, context: int = 512, **options: Any):
    return read_examples(source, tokenizer, fmt, context=context, at="sft.data", **options)


def marked(item: Any, tokenizer: Any) -> str:
    """The row as text, what is trained on between brackets."""
    [sample] = samples([item], tokenizer)
    return "".join(f"[{part.text}]" if part.answer else part.text for part in sample.segments)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


TURNS = [user("What is two?"), assistant("A number."), user("And three?"), assistant("Also one.")]


def test_every_turn_of_the_assistant_and_its_end_token_are_the_answer(qwen, rows) -> None:
    [item] = read(rows({"messages": [{"role": "system", "content": "Be brief."}, *TURNS]}), qwen).items
    assert marked(item, qwen) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is two?<|im_end|>\n<|im_start|>assistant\n"
        "[A number.<|im_end|>]\n<|im_start|>user\nAnd three?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[Also one.<|im_end|>]"
    )
    assert [item.ids[i] for i in range(1, len(item.ids)) if item.answer[i]] == [
        *qwen("A number.<|im_end|>", add_special_tokens=False)["input_ids"],
        *qwen("Also one.<|im_end|>", add_special_tokens=False)["input_ids"],
    ]


def test_tokens_before_an_answer_are_those_a_generation_begins_with(qwen, rows) -> None:
    source = rows({"messages": TURNS[:2]})
    for thinking in (THINKING_OFF, THINKING_ON):
        form = PromptFormat(thinking=thinking)
        [item] = read(source, qwen, form).items
        [prompt] = read_prompts(source, qwen, form, context=512, at="rl.prompts").items
        first = item.answer.index(True)
        assert item.ids[:first] == prompt.ids


def test_an_empty_think_block_is_learnt_only_where_the_model_is_to_think(qwen, rows) -> None:
    source = rows({"messages": TURNS[:2]})
    [off] = read(source, qwen, PromptFormat(thinking=THINKING_OFF)).items
    [on] = read(source, qwen, PromptFormat(thinking=THINKING_ON)).items
    assert marked(off, qwen).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n[A number.<|im_end|>]")
    assert marked(on, qwen).endswith("<|im_start|>assistant\n[<think>\n\n</think>\n\nA number.<|im_end|>]")


def test_thinking_is_part_of_the_answer_it_belongs_to(qwen, rows) -> None:
    thought = "<think>\nTwo is even.\n</think>\n\nA number."
    turns = [user("What is two?"), assistant(thought), user("And?"), assistant(thought)]
    [item] = read(rows({"messages": turns}), qwen).items
    # The template leaves out what was thought in an earlier turn.
    assert marked(item, qwen) == (
        "<|im_start|>user\nWhat is two?<|im_end|>\n<|im_start|>assistant\n[A number.<|im_end|>]\n"
        "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n[" + thought + "<|im_end|>]"
    )
    empty = [user("What is two?"), assistant("<think>\n\n</think>\n\nA number.")]
    [item] = read(rows({"messages": empty}), qwen).items
    assert marked(item, qwen).endswith("assistant\n<think>\n\n</think>\n\n[A number.<|im_end|>]")


def test_what_was_said_is_not_mistaken_for_the_template(qwen, rows) -> None:
    turns = [user("Write assistant, then user."), assistant("assistant\nuser<|im_end|> and so on")]
    [item] = read(rows({"messages": turns}), qwen).items
    assert marked(item, qwen).endswith("</think>\n\n[assistant\nuser<|im_end|> and so on<|im_end|>]")
    same = [user("assistant"), assistant("assistant"), user("assistant"), assistant("assistant")]
    [item] = read(rows({"messages": same}), qwen).items
    assert marked(item, qwen).count("[assistant<|im_end|>]") == 2


def test_calls_of_tools_are_written_by_the_assistant(qwen, rows) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        user("Add."),
        {"role": "assistant", "content": "Now:", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        assistant("Three."),
    ]
    [item] = read(rows({"messages": turns}), qwen).items
    said = marked(item, qwen)
    assert '[Now:\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>]' in said
    assert "[3" not in said
    assert said.endswith("[Three.<|im_end|>]")


def test_conversations_in_the_layout_of_sharegpt(qwen, rows) -> None:
    turns = [{"from": "human", "value": "What is two?"}, {"from": "gpt", "value": "A number."}]
    [same] = read(rows({"conversations": turns}), qwen).items
    [item] = read(rows({"messages": TURNS[:2]}), qwen).items
    assert same.ids == item.ids


def test_the_system_turn_of_the_format_stands_where_a_row_has_none(qwen, rows) -> None:
    form = PromptFormat(chat=True, system="Be brief.", thinking=THINKING_OFF)
    own = [{"role": "system", "content": "Be long."}, *TURNS[:2]]
    given, kept = read(rows({"messages": TURNS[:2]}, {"messages": own}), qwen, form).items
    assert marked(given, qwen).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert marked(kept, qwen).startswith("<|im_start|>system\nBe long.<|im_end|>")


def test_a_completion_ends_with_one_end_token(qwen, rows) -> None:
    source = rows({"q": "1+1=", "a": 2}, {"q": "1+1=", "a": "2<|im_end|>"}, prompt="Q: {q}", completion=" {a}")
    found = read(source, qwen)
    assert [marked(item, qwen) for item in found.items] == ["Q: 1+1=[ 2<|im_end|>]"] * 2
    assert found.template == "'Q: {q}' then ' {a}'"
    [item, _] = read(source, qwen, CHAT).items
    assert marked(item, qwen).endswith(
        "user\nQ: 1+1=<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n[ 2<|im_end|>]"
    )


def test_plain_text_is_trained_on_but_for_its_first_token(qwen, rows) -> None:
    [item] = read(rows({"text": "The cat sat on the mat."}), qwen).items
    assert item.ids == tuple(qwen("The cat sat on the mat.")["input_ids"])
    assert item.answer == (False, *[True] * (len(item.ids) - 1))


def test_columns_are_found_by_their_names(qwen, rows) -> None:
    found = read(rows({"id": 7, "question": "Why?", "answer": "Because.", "lang": "EN-us"}), qwen)
    assert found.template == "'{question}' then '{answer}'"
    assert (found.items[0].language, found.items[0].tagged) == ("en", False)
    with pytest.raises(UserError, match="which column holds the prompt") as error:
        read(rows({"a": "x", "b": "y"}), qwen)
    assert error.value.field == "sft.data.prompt"
    with pytest.raises(UserError, match="which column holds the completion"):
        read(rows({"question": "Why?"}), qwen)


def test_a_row_loses_its_end_and_one_without_an_answer_left_is_counted(qwen, rows) -> None:
    long = {"question": "one two three four five six", "answer": "seven"}
    short = {"question": "one", "answer": "two three four five six seven"}
    found = read(rows(short, long), qwen, context=4)
    assert [item.row for item in found.items] == [0]
    assert len(found.items[0].ids) == 4
    assert found.items[0].cut
    assert found.left_out == {CUT_OFF: 1}
    whole = read(rows(short), qwen).items[0]
    assert found.items[0].ids == whole.ids[:4]
    assert not whole.cut


def test_rows_that_cannot_be_used_are_counted_by_reason(qwen, rows) -> None:
    source = rows(
        {"messages": TURNS},
        "no json",
        {"messages": [user("Hello?")]},
        {"messages": []},
        {"other": 1},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
    )
    found = read(source, qwen)
    assert found.read == 6
    assert found.left_out == {
        UNREADABLE: 1,
        NO_ANSWER: 1,
        "the conversation is no list of turns": 1,
        "no column 'messages' with a value": 1,
        "a turn holds something other than text": 1,
    }
    assert found.faults[0].place.endswith("rows.jsonl:2")
    with pytest.raises(UserError, match="no row that can be used") as error:
        read(rows({"messages": [user("Hello?")]}), qwen)
    assert error.value.reason == "ROWS_EMPTY"


def test_skip_begins_where_limit_ended_whatever_is_left_out(qwen, rows) -> None:
    lines = [{"question": f"Number {i}?", "answer": "" if i == 1 else str(i), "kind": "ab"[i % 2]} for i in range(10)]
    first = read(rows(*lines, limit=4), qwen)
    rest = read(rows(*lines, skip=4), qwen)
    assert [item.row for item in first.items] == [0, 2, 3]
    assert [item.row for item in rest.items] == [4, 5, 6, 7, 8, 9]
    odd = read(rows(*lines, skip=1, limit=2, where="kind=b"), qwen)
    assert [item.row for item in odd.items] == [3, 5]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("这是一个关于天气的句子。", "zh"),
        ("これは天気についての文です。", "ja"),
        ("오늘은 날씨가 좋습니다.", "ko"),
        ("Το σπίτι είναι μεγάλο.", "el"),
        ("The weather is fine today and we will go for a walk in the park.", "en"),
        ("Das Wetter ist heute schön, und wir gehen im Park spazieren.", "de"),
        ("Сегодня хорошая погода, и мы пойдём гулять в парк.", "ru"),
        ("12 + 30 = 42", None),
        ("ok", None),
    ],
)
def test_languages_are_tagged_by_script_and_then_by_words(qwen, rows, text: str, language: str | None) -> None:
    found = read(rows({"prompt": "Say.", "completion": text}), qwen)
    assert found.items[0].language == language
    assert found.items[0].tagged == (language is not None)
    assert found.tagged == ({language: 1} if language else {})
    assert found.untagged == (language is None)
    assert read(rows({"prompt": "Say.", "completion": text}), qwen, tag=False).untagged == 1


def test_prompts_are_asked_as_they_are_rendered_and_carry_their_row(qwen, rows) -> None:
    source = rows({"question": "2+2?", "answer": 4, "extra": [1]}, {"question": "What is the capital city of France?"})
    found = read_prompts(source, qwen, CHAT, context=512, at="rl.prompts")
    first, second = found.items
    assert first.text == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert first.ids == tuple(qwen(first.text)["input_ids"])
    assert (first.answer, first.fields["extra"], first.language, first.asked) == ("4", [1], "", "2+2?")
    assert (second.answer, second.language, second.tagged) == ("", "en", True)
    short = read_prompts(source, qwen, OFF, context=4, at="rl.prompts")
    assert [item.row for item in short.items] == [0]
    assert short.left_out == {TOO_LONG: 1}


def test_a_prompt_is_a_conversation_without_its_last_answer(qwen, rows) -> None:
    [item] = read_prompts(rows({"messages": TURNS}), qwen, OFF, context=512, at="rl.prompts").items
    assert item.text.endswith("<|im_start|>user\nAnd three?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert "[A number." not in item.text
    assert "A number." in item.text
    assert "Also one." not in item.text


def test_a_template_that_rewrites_is_refused(qwen, rows) -> None:
    import copy

    loud = copy.deepcopy(qwen)
    loud.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content.upper() }}<|im_end|>{% endfor %}"
    with pytest.raises(UserError, match="rewrites"):
        read(rows({"messages": TURNS}), loud)
    loud.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        read(rows({"messages": TURNS}), loud)


def test_the_texts_that_ship_are_rows_of_plain_text(qwen) -> None:
    found = read(TrainRows(source="embedded-heldout", limit=20), qwen, context=64)
    assert found.template == "text in 'text'"
    assert sum(found.given.values()) == len(found.items) == 20
    assert set(map(len, (item.ids for item in found.items))) <= set(range(2, 65))
