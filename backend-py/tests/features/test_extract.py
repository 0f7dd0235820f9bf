"""Extracted activations: every code of every token, the same bytes after a kill, and where features fire most."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from qscope.data import open_text
from qscope.errors import UserError
from qscope.features import contexts
from qscope.features.contexts import TopContexts, contexts_of_shard, contexts_of_text, in_slices, token_texts
from qscope.features.documents import DocumentReader
from qscope.features.extract import extract
from qscope.features.shards import Extract, checksum
from qscope.recipes.plan_features import CODE_BYTES
from qscope.v1.features_pb2 import Rendering, TokenMasks
from qscope.v1.text_pb2 import TextSource

LAYERS = [0, 3]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "others", "watch", "them"]


@pytest.fixture
def text(tmp_path) -> Path:
    """44 documents of 2 to 19 words, and some without any."""
    noise = np.random.default_rng(0)
    path = tmp_path / "t.jsonl"
    rows = [" ".join(noise.choice(WORDS, noise.integers(2, 20))) if n % 9 else "" for n in range(50)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def reader(text: Path, tokenizer, context: int = 40) -> DocumentReader:
    return DocumentReader(
        open_text(TextSource(source=str(text))),
        tokenizer,
        context=context,
        rendering=Rendering(),
        masks=TokenMasks(skip_first_token=True, skip_special_tokens=True),
    )


@pytest.fixture
def run(tiny_model, saes, text, tokenizer):
    """``run(folder, ...)``: extracts all of the text into a folder."""

    def go(folder: Path, layout: str = "safetensors", should_stop=lambda: False, **changes):
        loaded = tiny_model()
        settings = {"documents": 0, "shard_documents": 10, "batch_tokens": 150, **changes}
        return extract(
            loaded,
            saes(loaded, LAYERS),
            reader(text, tokenizer),
            folder,
            identity={"model": loaded.facts.fingerprint, "text": {"source": str(text)}},
            facts={"sae": "random"},
            layout=layout,
            should_stop=should_stop,
            **settings,
        )

    return go


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("layout", ["safetensors", "parquet"])
def test_holds_every_code_of_every_token_that_counts(
    run, tiny_model, saes, text, tokenizer, dense, tmp_path, layout
) -> None:
    manifest = run(tmp_path / "x", layout)
    loaded = tiny_model()
    documents = reader(text, tokenizer).take(100)
    assert manifest["documents"] == len(documents) == 44
    assert manifest["tokens"] == sum(len(one.ids_T) for one in documents)
    assert manifest["tokens_counted"] == sum(int((one.group_T >= 0).sum()) for one in documents)
    runs = {layer: dense(loaded, sae, documents) for layer, sae in saes(loaded, LAYERS).items()}
    rows = codes = 0
    for shard in Extract(tmp_path / "x").shards():
        assert shard.first_row == rows
        key_P = [tuple(key) for key in np.stack([shard.row_P, shard.position_P, shard.layer_P], axis=1)]
        assert key_P == sorted(key_P)
        for place, number in enumerate(shard.number_R):
            document = documents[rows + place]
            assert number == document.number
            start, end = shard.offset_R[place], shard.offset_R[place + 1]
            np.testing.assert_array_equal(shard.ids_M[start:end], document.ids_T)
            np.testing.assert_array_equal(shard.counts_M[start:end], document.group_T >= 0)
            for layer in LAYERS:
                own = (shard.row_P == rows + place) & (shard.layer_P == layer)
                found_TF = np.zeros_like(runs[layer][rows + place].z_TF)
                found_TF[shard.position_P[own], shard.feature_P[own]] = shard.value_P[own]
                expected_TF = np.where(document.group_T[:, None] >= 0, runs[layer][rows + place].z_TF, 0)
                np.testing.assert_allclose(found_TF, expected_TF, rtol=1e-4, atol=1e-4)
        assert (shard.value_P > 0).all()
        rows, codes = rows + len(shard.number_R), codes + len(shard.row_P)
    assert (rows, codes) == (manifest["documents"], manifest["codes"])


def test_goes_on_after_any_stop_with_the_same_bytes(run, tmp_path) -> None:
    run(tmp_path / "whole")
    for patience in (0, 1, 4, 9):
        calls = 0

        def should_stop(patience=patience) -> bool:
            nonlocal calls
            calls += 1
            return calls > patience

        folder = tmp_path / f"stopped-{patience}"
        assert run(folder, should_stop=should_stop) is None
        assert not (folder / "manifest.json").exists()
        with pytest.raises(UserError, match="not finished"):
            Extract(folder)
        assert run(folder) is not None
        assert files(folder) == files(tmp_path / "whole")


def test_a_shard_that_is_damaged_is_written_again_and_never_read(run, tmp_path) -> None:
    run(tmp_path / "whole")
    folder = tmp_path / "damaged"
    run(folder)
    shard = folder / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3] + b"xyz")
    with pytest.raises(UserError, match=r"shard-00001\.safetensors is not what the manifest says"):
        list(Extract(folder).shards())
    run(folder)
    assert files(folder) == files(tmp_path / "whole")


def test_something_else_in_the_same_folder_is_refused(run, tmp_path) -> None:
    run(tmp_path / "x")
    with pytest.raises(UserError, match="shard_documents has changed") as caught:
        run(tmp_path / "x", shard_documents=11)
    assert caught.value.reason == "EXTRACT_CHANGED"


@pytest.mark.parametrize("content", [None, "[half"])
def test_shards_of_nobody_knows_what_are_refused(run, tmp_path, content) -> None:
    run(tmp_path / "x")
    identity = tmp_path / "x" / "extract.json"
    identity.unlink()
    if content is not None:
        identity.write_text(content)
    before = files(tmp_path / "x")
    with pytest.raises(UserError, match=r"extract\.json") as caught:
        run(tmp_path / "x")
    assert caught.value.reason == "EXTRACT_CHANGED"
    assert caught.value.remedy
    assert files(tmp_path / "x") == before


def test_a_shard_of_something_else_is_written_again(run, tmp_path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "x")
    other = tmp_path / "x" / "shard-00002.json"
    other.write_text(json.dumps({**json.loads(other.read_text()), "key": "of another extract"}))
    run(tmp_path / "x")
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_half_files_of_a_killed_run_are_removed(run, tmp_path) -> None:
    run(tmp_path / "whole")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".shard-00000.safetensors.4711.tmp").write_bytes(b"half")
    run(tmp_path / "x")
    assert files(tmp_path / "x") == files(tmp_path / "whole")


@pytest.fixture
def broken(monkeypatch) -> None:
    """The third token of every second document is not finite at layer 3; by its ids, whatever the batch."""
    from qscope.features import reading

    capture = reading.capture_residuals

    def breaking(loaded, layers, input_ids_BT, mask_BT=None):
        captured = capture(loaded, layers, input_ids_BT, mask_BT)
        is_broken_B = input_ids_BT[:, :3].sum(1) % 2 == 0
        captured[3][is_broken_B, 2] = torch.nan
        return captured

    monkeypatch.setattr(reading, "capture_residuals", breaking)


def test_tokens_that_are_not_finite_are_counted_and_count_nowhere(
    run, broken, tiny_model, saes, text, tokenizer, tmp_path
) -> None:
    loaded = tiny_model()
    documents = reader(text, tokenizer).take(100)
    is_broken = [
        one for one in documents if len(one.ids_T) > 2 and one.group_T[2] >= 0 and one.ids_T[:3].sum() % 2 == 0
    ]
    assert len(is_broken) > 5
    manifest = run(tmp_path / "x")
    whole = sum(int((one.group_T >= 0).sum()) for one in documents)
    assert manifest["tokens_not_finite"] == len(is_broken)
    assert manifest["tokens_counted"] == whole - len(is_broken)
    assert [shard["tokens_not_finite"] > 0 for shard in manifest["shards"]].count(True) > 1
    direct, stored = ({3: [TopContexts([3, 20], 6, before=5, after=3)]} for _ in range(2))
    encoders = saes(loaded, LAYERS)
    left_out = contexts_of_text(loaded, {3: encoders[3]}, documents, direct, batch_tokens=130)
    assert left_out == len(is_broken)
    for shard in Extract(tmp_path / "x").shards():
        contexts_of_shard(shard, stored, {3: encoders[3].d_sae}, batch_tokens=130)
    for one, other in zip(direct[3][0].results(3, tokenizer), stored[3][0].results(3, tokenizer), strict=True):
        assert one.tokens == other.tokens == whole - len(is_broken)
        assert one.rate == pytest.approx(other.rate, abs=1e-9)
        assert [place.document for place in one.contexts] == [place.document for place in other.contexts]


def test_a_tokenizer_is_known_by_what_decides_its_tokens(tokenizer) -> None:
    import copy

    from qscope.recipes.extract_features import tokenizer_record

    record = tokenizer_record(tokenizer)
    other = copy.deepcopy(tokenizer)
    other(["some words", "more"], padding=True, truncation=True, max_length=4)
    assert tokenizer_record(other) == record, "how it was called last is no part of it"
    other.add_tokens(["quick brown"])
    assert tokenizer_record(other) != record


@pytest.mark.slow
def test_ordering_a_shard_holds_no_more_than_the_plan_counts() -> None:
    """Peak resident memory, in a process of its own: bytes a code at the worst, the parts themselves included."""
    script = """
import re, torch
from pathlib import Path
from qscope.features.extract import ordered
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, count = peak(), 1_000_000
types = dict(row=torch.int64, position=torch.int32, layer=torch.int32, feature=torch.int32, value=torch.float32)
made = ordered({name: [torch.ones(count, dtype=kind) for _ in range(8)] for name, kind in types.items()})
print((peak() - before) / len(made["row"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert 24 < float(done.stdout) < 1.1 * 2 * CODE_BYTES


def test_reads_no_more_documents_than_asked_for(run, tmp_path) -> None:
    manifest = run(tmp_path / "x", documents=23)
    assert [shard["documents"] for shard in manifest["shards"]] == [10, 10, 3]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("manifest.json", "{}", "EXTRACT_DAMAGED"),
        ("manifest.json", '{"format": "qscope.activations", "format_version": 9, "shards": []}', "EXTRACT_DAMAGED"),
        ("manifest.json", "[", "EXTRACT_UNFINISHED"),
        ("shard-00000.safetensors", None, "EXTRACT_DAMAGED"),
    ],
)
def test_a_damaged_extract_is_refused(run, tmp_path, name, content, reason) -> None:
    run(tmp_path / "x")
    if content is None:
        (tmp_path / "x" / name).unlink()
    else:
        (tmp_path / "x" / name).write_text(content)
    with pytest.raises(UserError) as caught:
        list(Extract(tmp_path / "x", field="top_features.activations").shards())
    assert (caught.value.reason, caught.value.field) == (reason, "top_features.activations")
    with pytest.raises(UserError) as caught:
        Extract(tmp_path)
    assert caught.value.reason == "EXTRACT_NOT_FOUND"


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(text, tmp_path, tiny_folder) -> None:
    """The recipe as a process, killed as soon as its second shard is there, against one left alone."""
    from google.protobuf import json_format

    from qscope.recipes import extract_features
    from qscope.runs import Journal, RunContext, RunFolder
    from qscope.sae import formats
    from qscope.sae.topk import TopKSae
    from qscope.v1.experiment_pb2 import Experiment

    noise = torch.Generator().manual_seed(1)
    W_FD, b_F = torch.randn(64, 32, generator=noise), torch.zeros(64)
    formats.save({1: TopKSae(W_FD, b_F, W_FD.clone(), torch.zeros(32), k=4, layer=1)}, tmp_path / "sae", ["native"], {})
    big = tmp_path / "big.jsonl"
    big.write_text(text.read_text() * 20)
    task = {
        "sae": str(tmp_path / "sae"),
        "text": {"source": str(big), "field": "text", "split": "train", "context": 40},
        "shard_documents": 25,
        "format": "ACTIVATION_FORMAT_SAFETENSORS",
        "masks": {"skip_first_token": True},
        "model_batch_tokens": 200,
    }
    fields = {"name": "x", "model": str(tiny_folder), "compute": {"device": "DEVICE_CPU", "threads": 1}}
    experiment = json_format.ParseDict({**fields, "extract_features": task}, Experiment())

    def go(folder: RunFolder) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with Journal(folder.events) as journal:
                extract_features.run(RunContext(folder, journal))
        finally:
            torch.set_num_threads(threads)

    whole, killed = (RunFolder.create(tmp_path / "runs", experiment, name) for name in ("whole", "killed"))
    go(whole)
    process = subprocess.Popen(
        [sys.executable, "-m", "qscope.execute", str(killed.path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
    )
    second = killed.artifacts / "activations" / "shard-00001.json"
    while not second.exists():
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed.artifacts / "activations" / "manifest.json").exists(), "it was killed too late to tell anything"
    before = {path: path.stat().st_mtime_ns for path in second.parent.glob("shard-0000[01].*")}
    go(killed)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "whole shards are left alone"
    names = sorted(path.name for path in (whole.artifacts / "activations").glob("*") if path.name[0] != ".")
    assert len(names) > 30
    for name in names:
        one, other = (run.artifacts / "activations" / name for run in (whole, killed))
        assert checksum(one) == checksum(other), name


def best_by_hand(runs, documents, feature: int, count: int) -> list[tuple[float, int, int]]:
    """(activation, document, position) of the best documents, ties by document and then by position."""
    best = []
    for run, document in zip(runs, documents, strict=True):
        acts_T = np.where(document.group_T >= 0, run.z_TF[:, feature], 0)
        if acts_T.max() > 0:
            best.append((-acts_T.max(), document.number, int(acts_T.argmax())))
    return [(-value, number, position) for value, number, position in sorted(best)[:count]]


@pytest.mark.parametrize("layout", ["safetensors", "parquet"])
def test_the_best_contexts_come_from_text_and_from_shards_alike(
    run, tiny_model, saes, text, tokenizer, dense, tmp_path, layout, monkeypatch
) -> None:
    loaded = tiny_model()
    encoders, documents = saes(loaded, LAYERS), reader(text, tokenizer).take(100)
    wanted = {0: [3, 20, 41], 3: [7]}

    # In slices of two features, where others would take them all at once.
    monkeypatch.setattr(contexts, "FEATURES_AT_ONCE", 2)

    def fresh() -> dict[int, list[TopContexts]]:
        return {
            layer: [TopContexts(part, 6, before=5, after=3) for part in in_slices(features)]
            for layer, features in wanted.items()
        }

    direct, stored = fresh(), fresh()
    assert contexts_of_text(loaded, encoders, documents, direct, batch_tokens=130) == 0
    run(tmp_path / "x", layout)
    for shard in Extract(tmp_path / "x").shards():
        contexts_of_shard(shard, stored, {layer: sae.d_sae for layer, sae in encoders.items()}, batch_tokens=130)
    compared = 0
    for layer, features in wanted.items():
        runs = dense(loaded, encoders[layer], documents)
        everything_NF = np.concatenate(
            [one.z_TF[document.group_T >= 0] for one, document in zip(runs, documents, strict=True)]
        )
        one, other = (
            [entry for top in tops[layer] for entry in top.results(layer, tokenizer)] for tops in (direct, stored)
        )
        assert len(direct[layer]) == (2 if layer == 0 else 1)
        assert [entry.feature for entry in one] == features
        for entry, again in zip(one, other, strict=True):
            expected = best_by_hand(runs, documents, entry.feature, 6)
            for found in (entry, again):
                assert [place.activation for place in found.contexts] == pytest.approx(
                    [value for value, _, _ in expected], rel=1e-4
                )
                assert found.tokens == len(everything_NF)
                assert found.rate == pytest.approx((everything_NF[:, entry.feature] > 0).mean(), abs=1e-3)
                assert found.mean == pytest.approx(everything_NF[:, entry.feature].mean(), rel=1e-3)
            for context in entry.contexts:
                document = next(one for one in documents if one.number == context.document)
                low = max(0, context.position - 5)
                ids = document.ids_T[low : context.position + 4]
                assert context.text == "".join(context.tokens) == tokenizer.decode(ids)
                assert len(context.activations) == len(ids)
                assert context.activations[context.peak] == pytest.approx(context.activation)
                assert context.peak == context.position - low
                compared += 1
    assert compared > 12


def test_of_equal_activations_the_earlier_document_is_kept() -> None:
    top = TopContexts([0], 2, before=0, after=0)
    ids_BT, length_B = torch.ones(3, 2, dtype=torch.long), torch.tensor([2, 2, 2])
    acts_BTM = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])[:, :, None]
    top.add(acts_BTM, ids_BT, length_B, torch.tensor([9, 4, 7]), 6)
    top.add(acts_BTM[:1], ids_BT[:1], length_B[:1], torch.tensor([5]), 2)

    class Letters:
        def decode(self, ids, **_) -> str:
            return "x" * len(ids)

    (found,) = top.results(2, Letters())
    assert [(one.document, one.position) for one in found.contexts] == [(4, 0), (5, 1)]
    assert (found.rate, found.mean, found.max_activation) == (5 / 8, 5 / 8, 1.0)


@pytest.mark.parametrize("text", ["Größe über 第三篇 🙂 漢", "plain words", "한국어 문장 사이에 emoji 🙂🙂"])
def test_token_texts_join_to_the_text_whatever_bytes_a_token_holds(text) -> None:
    from qscope.models import load_model
    from qscope.v1.model_pb2 import ModelOptions

    tokenizer = load_model("embedded", ModelOptions()).tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == text
    # A window may start and end inside a character; what is whole stays whole.
    inner = "".join(token_texts(tokenizer, ids[1:-1]))
    assert inner.strip("\ufffd") in text
