"""Controls of the SAE loss: features that fire as often, tokens of another language, rows without switches."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from qscope import embedded
from qscope.errors import UserError
from qscope.posttraining.examples import Example
from qscope.posttraining.foreign_tokens import foreign_tokens
from qscope.posttraining.held_features import held_features
from qscope.posttraining.random_features import NEIGHBOURS, Answers, draw_alike, firing_rates, random_features
from qscope.posttraining.switch_filter import without_switches
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet
from tests.posttraining.tuned import examples

AT = "sft.sae_loss.target_languages"


@pytest.fixture(scope="module")
def qwen():
    return AutoTokenizer.from_pretrained(embedded.model_path())


def written(tokenizer, text: str, language: str | None, row: int = 0) -> Example:
    ids = tuple(tokenizer("Q:", add_special_tokens=False)["input_ids"])
    answer = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Example(ids + answer, (False,) * len(ids) + (True,) * len(answer), language, row)


# -- features that fire as often --


@pytest.fixture
def saes(tiny_model) -> dict[int, TopKSae]:
    noise = torch.Generator().manual_seed(3)
    return {
        layer: TopKSae(
            torch.randn(64, 32, generator=noise),
            0.5 * torch.randn(64, generator=noise),
            torch.randn(64, 32, generator=noise),
            torch.zeros(32),
            k=8,
            layer=layer,
        )
        for layer in (1, 2)
    }


def file_of(saes: dict[int, TopKSae]) -> FeatureSet:
    entries = []
    for layer in saes:
        for feature, language in ((5, "zh"), (6, "zh"), (7, "zh"), (8, "de")):
            alphas = {"zh": 1.0, "de": -0.5, "xx": 0.0}
            entries.append(
                FeatureEntry(layer=layer, feature=feature, group=language, score=10.0 - feature, class_alphas=alphas)
            )
    return FeatureSet(kind="language", model="m", entries=entries)


def test_rates_and_thresholds_are_those_of_the_answers(tiny_model, saes) -> None:
    loaded, rows = tiny_model("qwen3"), examples(9)
    answers = Answers.sample(loaded, rows, seed=1)
    rates = firing_rates(answers, saes)
    made = random_features(file_of(saes), answers, saes, ["zh"], 2, ["de", "xx", "zh"], seed=4)
    hits, tokens = {layer: Counter() for layer in saes}, 0
    sums = {(e.layer, e.feature): {"de": [], "xx": [], "zh": []} for e in made.entries}
    for row in rows:
        out = loaded.model(input_ids=torch.tensor([row.ids]), output_hidden_states=True)
        for layer, sae in saes.items():
            # Hidden state 0 is the embedding.
            resid_TD = out.hidden_states[layer + 1][0].detach()
            for place, flag in enumerate(row.answer):
                if flag:
                    u_F = sae.W_enc_FD.double() @ resid_TD[place].double() + sae.b_enc_F.double()
                    hits[layer].update(f for f in u_F.topk(8).indices.tolist() if u_F[f] > 0)
                    for entry in made.entries:
                        if entry.layer == layer:
                            sums[layer, entry.feature][row.language].append(float(u_F[entry.feature]))
        tokens += sum(row.answer)
    for layer in saes:
        wanted_F = torch.tensor([hits[layer][feature] / tokens for feature in range(64)], dtype=torch.float64)
        assert torch.allclose(rates[layer], wanted_F, atol=1e-9)
    for entry in made.entries:
        for language, values in sums[entry.layer, entry.feature].items():
            assert entry.class_alphas[language] == pytest.approx(sum(values) / len(values), abs=1e-4)
        assert entry.rate_positive == pytest.approx(float(rates[entry.layer][entry.feature]))


def test_stand_ins_are_drawn_anew_by_the_seed_and_are_none_of_the_file(tiny_model, saes) -> None:
    answers = Answers.sample(tiny_model("qwen3"), examples(9), seed=1)

    def drawn(seed: int) -> list[tuple[int, int]]:
        made = random_features(file_of(saes), answers, saes, ["zh"], 2, ["de", "xx", "zh"], seed=seed)
        assert made.kind == "random"
        assert [entry.group for entry in made.entries] == ["zh"] * 4
        return [(entry.layer, entry.feature) for entry in made.entries]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1
    for seed in range(5):
        assert len(set(drawn(seed))) == 4
        assert not {feature for _, feature in drawn(seed)} & {5, 6, 7, 8}
    made = random_features(file_of(saes), answers, saes, ["zh"], 2, ["de", "xx", "zh"], seed=1)
    held, languages = held_features(made, saes, targets=["zh"], top_k=2)
    assert languages == ["de", "xx", "zh"]
    assert [(part.rows.layer, f) for part in held for f in part.rows.features] == drawn(1)


def test_a_stand_in_is_among_the_nearest_in_rate() -> None:
    rate_F = torch.logspace(-6, 0, 200, dtype=torch.float64)
    for seed in range(20):
        first, second = draw_alike(rate_F, [100, 101], [99, 102], seed=seed)
        assert first != second
        assert not {first, second} & {99, 100, 101, 102}
        assert abs(first - 100) <= NEIGHBOURS
        assert abs(second - 101) <= NEIGHBOURS


# -- tokens of another language --


def test_tokens_of_another_script_are_foreign_and_shared_ones_are_not(qwen) -> None:
    rows = [written(qwen, text, language) for text, language in (("hello", "en"), ("你好", "zh"), ("こんにちは", "ja"))]
    held_GV = foreign_tokens(qwen, rows, ["en", "ja", "zh"], ["zh"], at=AT)
    ids = {text: qwen(text, add_special_tokens=False)["input_ids"] for text in ("中", "the", "12", "。")}
    han = next(index for index in range(len(qwen)) if qwen.decode([index]) == "的")
    assert held_GV[0, han]
    assert not held_GV[0, ids["the"]].any()
    assert not held_GV[0, ids["12"]].any()
    # A full stop is common to scripts, and a part of a character has none.
    assert not held_GV[0, ids["。"]].any()
    assert not held_GV[0, qwen.convert_tokens_to_ids("<|im_end|>")]
    # To its own language nothing is foreign; Japanese is written with the same characters, and use decides.
    assert not held_GV[2].any()
    assert not held_GV[1, han]


def test_where_the_script_is_the_same_use_decides(qwen) -> None:
    rows = [
        written(qwen, " und das ist nicht der Tag " * 3, "de", 0),
        written(qwen, " the day is long and the " * 3, "en", 1),
    ]
    held_GV = foreign_tokens(qwen, rows, ["de", "en"], ["de"], at=AT)
    counts = {row.language: Counter(t for t, flag in zip(row.ids, row.answer, strict=True) if flag) for row in rows}
    totals = {name: sum(count.values()) for name, count in counts.items()}
    for token in range(len(qwen)):
        theirs, own = counts["de"][token], counts["en"][token]
        share, own_share = theirs / totals["de"], (own + 0.5) / (totals["en"] + 0.5)
        assert bool(held_GV[1, token]) == (theirs >= 5 and share >= 10 * own_share)
    with pytest.raises(UserError, match="no row is in it") as error:
        foreign_tokens(qwen, rows[1:], ["en"], ["de"], at=AT)
    assert (error.value.reason, error.value.field) == ("VOCABULARY_UNKNOWN", f"{AT}[0]")


def test_what_is_used_ten_times_as_much_is_foreign(qwen) -> None:
    mark, other = (qwen(text, add_special_tokens=False)["input_ids"][0] for text in (" der", " the"))
    theirs = Example((1, *[mark] * 40, *[other] * 60), (False, *[True] * 100), "de", 0)
    own = Example((1, *[mark] * 2, *[other] * 98), (False, *[True] * 100), "en", 1)
    held_GV = foreign_tokens(qwen, [theirs, own], ["de", "en"], ["de"], at=AT)
    assert held_GV[1].nonzero().flatten().tolist() == [mark]
    more = replace(own, ids=(1, *[mark] * 5, *[other] * 95))
    assert not foreign_tokens(qwen, [theirs, more], ["de", "en"], ["de"], at=AT).any()


# -- rows without switches --


def test_rows_that_switch_are_left_out(qwen) -> None:
    rows = [
        written(qwen, "The sum is seven.", "en", 0),
        written(qwen, "The sum is 七个苹果 now.", "en", 1),
        written(qwen, "总和是七。", "zh", 2),
        written(qwen, "Сумма равна семи, 很好。", "ru", 3),
        written(qwen, "The sum is семь now.", "en", 4),
        written(qwen, "whatever 很好", None, 5),
        written(qwen, "whatever 很好", "tlh", 6),
    ]
    left = without_switches(rows, qwen, ["zh"])
    assert [row.row for row in left.kept] == [0, 2, 4, 5, 6]
    assert left.dropped == {"en": 1, "ru": 1}
    assert left.unjudged == 2
