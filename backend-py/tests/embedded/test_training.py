"""The parts of the recipe that compute: the head's loss, Muon, packed rows, the run's state."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import Qwen3ForCausalLM


def test_head_loss_is_cross_entropy_with_exact_gradients(recipe):
    head = recipe("head_loss")
    torch.manual_seed(0)
    hidden_ND = torch.randn(600, 12, dtype=torch.float64, requires_grad=True)
    weight_VD = torch.randn(50, 12, dtype=torch.float64, requires_grad=True)
    targets_N = torch.randint(0, 50, (600,))
    targets_N[::7] = head.IGNORED
    wanted = functional.cross_entropy(hidden_ND @ weight_VD.T, targets_N, ignore_index=head.IGNORED)
    wanted_grads = torch.autograd.grad(3 * wanted, (hidden_ND, weight_VD))
    got = head.head_loss(hidden_ND, weight_VD, targets_N)
    got_grads = torch.autograd.grad(3 * got, (hidden_ND, weight_VD))
    torch.testing.assert_close(got, wanted)
    for mine, theirs in zip(got_grads, wanted_grads, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("shape", [(2, 16, 48), (2, 48, 16), (1, 32, 32)])
def test_orthogonalise_brings_singular_values_near_one_and_keeps_directions(recipe, shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    result = recipe("muon").orthogonalise(matrices)
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    # The least direction of a square matrix may be too faint for five steps; the rest are lifted.
    assert values[:, :-1].min() > 0.5
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.mT @ result @ right.mT
    off = inner - torch.diag_embed(torch.diagonal(inner, dim1=-2, dim2=-1))
    assert off.abs().max() < 1e-4


def test_muon_descends(recipe):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 8))
    goal = torch.randn(8, 8)
    optimiser = recipe("muon").Muon([weight], lr=0.3, weight_decay=0.0)
    first = (weight - goal).norm().item()
    for _ in range(60):
        optimiser.zero_grad()
        (weight - goal).square().sum().backward()
        optimiser.step()
    assert (weight - goal).norm().item() < 0.2 * first


@pytest.fixture
def token_files(tmp_path):
    """Two streams whose tokens say which document they come from: a's are 1.., b's are 101.."""
    for name, first in (("a", 1), ("b", 101)):
        lengths = [3, 7, 30, 5]
        np.save(tmp_path / f"{name}.npy", np.repeat(np.arange(first, first + 4), lengths).astype(np.uint16))
        np.save(tmp_path / f"{name}.starts.npy", np.cumsum([0, *lengths]))
    return tmp_path


def test_packed_rows_overlap_by_one_token_and_lose_none(recipe, token_files):
    packed = recipe("packed_rows").PackedRows(token_files, {"a": 0.75, "b": 0.25}, context=16, seed=3)
    rows = list(islice(packed, 60))
    assert all(len(row) == 17 for row in rows)
    assert all(one[-1] == two[0] for one, two in pairwise(rows))
    flat = np.concatenate([row[:-1] for row in rows])
    runs = np.split(flat, np.flatnonzero(np.diff(flat)) + 1)
    # Whole documents: every run but the last is a multiple of its document's length.
    lengths = {1: 3, 2: 7, 3: 30, 4: 5}
    assert all(len(run) % lengths[run[0] % 100] == 0 for run in runs[:-1])
    assert 0.7 < (flat < 100).mean() < 0.8


def test_packed_rows_are_the_same_for_one_seed(recipe, token_files):
    def first(seed):
        packed = recipe("packed_rows").PackedRows(token_files, {"a": 0.5, "b": 0.5}, context=16, seed=seed)
        return np.stack(list(islice(packed, 30)))

    assert (first(1) == first(1)).all()
    assert (first(1) != first(2)).any()


def test_a_run_taken_up_from_its_state_goes_on_as_if_never_stopped(recipe, tmp_path):
    presets, train, state = recipe("presets"), recipe("train"), recipe("run_state")
    preset = presets.Preset(32, 2, 2, 1, 48, rows=1, muon_lr=1e-2, adam_lr=1e-2, tokens=None, generated=1)

    def fresh():
        torch.manual_seed(0)
        model = Qwen3ForCausalLM(presets.config_of(preset, 64, 1, 0))
        return model, train.optimisers_of(model, preset, "muon")

    def step(model, optimisers, seed):
        ids = torch.randint(0, 64, (2, 20), generator=torch.Generator().manual_seed(seed))
        model(input_ids=ids, labels=ids).loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    whole, whole_optimisers = fresh()
    for seed in range(4):
        step(whole, whole_optimisers, seed)
    first, first_optimisers = fresh()
    for seed in range(2):
        step(first, first_optimisers, seed)
    state.save_state(tmp_path / "state.safetensors", first, first_optimisers, {"step": 2})
    second, second_optimisers = fresh()
    assert state.load_state(tmp_path / "none", second, second_optimisers) is None
    assert state.load_state(tmp_path / "state.safetensors", second, second_optimisers) == {"step": 2}
    for seed in (2, 3):
        step(second, second_optimisers, seed)
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_rate_warms_up_holds_and_ends_at_zero(recipe):
    train = recipe("train")
    assert train.rate(0.0, 0) == 1 / train.WARMUP_STEPS
    assert train.rate(0.5, 10_000) == 1.0
    assert train.rate(1.0, 10_000) == 0.0
    assert 0 < train.rate(0.9, 10_000) < train.rate(0.7, 10_000) < 1


@pytest.mark.parametrize(
    ("block", "language", "kept"),
    [
        ("The printer is ready for the next document.", "en", True),
        ("Der Drucker ist bereit für das nächste Dokument.", "en", False),
        ("Der Drucker ist bereit für das nächste Dokument.", "de", True),
        ("L'imprimante est prête pour le document suivant.", "fr", True),
        ("Принтер готов к печати следующего документа.", "ru", True),
        ("打印机已准备好打印下一个文档。", "zh", True),
        ("The printer is ready 打印机。", "zh", False),
        ("프린터가 다음 문서를 인쇄할 준비가 되었습니다.", "ko", True),
        ("0x7f 0x80 0x81 -- 12:30:11 (4.5)", "en", False),
    ],
)
def test_only_prose_in_its_language_is_collected(recipe, block, language, kept):
    assert recipe("collect_text").in_language(block, language) is kept


def test_a_sentence_is_kept_once(recipe):
    collect, seen = recipe("collect_text"), set()
    assert collect.fresh_sentences("One thing. Another thing.", seen) == "One thing. Another thing."
    assert collect.fresh_sentences("A third thing. Another thing!", seen) == "A third thing."


@pytest.mark.parametrize(
    ("name", "kind", "content", "blocks"),
    [
        ("a.html", "html", "<p>One <b>bit</b>.</p><pre>x</pre><li>Two &amp; three</li>", ["One bit.", "Two & three"]),
        ("a.1", "man", ".TH A 1\na \\- \\fBit\\fR\n.PP\nSee\n.BR b (1).\n.nf\ncode\n.fi\n", ["a - it", "See b(1)."]),
        ("a", "fortune", "One.\n%\nTwo\nlines.\n%\n", ["One.", "Two lines."]),
        ("a.page", "mallard", "<page><info><desc>meta</desc></info><p>Text.</p><screen>ls</screen></page>", ["Text."]),
    ],
)  # fmt: skip
def test_extractors_give_paragraphs_without_code(recipe, tmp_path, name, kind, content, blocks):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert recipe("extract").EXTRACTORS[kind](tmp_path / name) == blocks
