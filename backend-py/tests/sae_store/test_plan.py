"""The plan is what then happens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qscope.errors import UserError
from qscope.sae import formats, store
from qscope.sae.store.folder import size


@pytest.mark.parametrize("layout", list(formats.LAYOUTS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_bytes_and_layers_are_those_of_the_conversion(tmp_path, put, layout, dtype):
    source = put(tmp_path, [0, 3, 9], layout, d_in=16, d_sae=100)
    before = store.plan(source, dtype=dtype)
    assert before.pending == before.layers == (0, 3, 9)
    assert before.fits
    assert not before.folder.exists()
    store.open_store(source, [3], dtype=dtype).close()
    between = store.plan(source, dtype=dtype)
    assert between.pending == (0, 9)
    assert "as the 1 layers converted before" in between.time_basis
    with store.open_store(source, dtype=dtype) as saes:
        written = sum(path.stat().st_size for path in Path(saes.folder).glob("*.safetensors"))
        encoders = sum(saes.encoder(layer, dtype=dtype)[0].nbytes for layer in saes.layers)
    after = store.plan(source, dtype=dtype)
    assert after.pending == ()
    assert (after.write_bytes, after.peak_bytes, after.seconds) == (0, 0, 0)
    assert before.write_bytes == before.store_bytes == after.store_bytes == written
    assert before.encoder_bytes == encoders
    assert before.source_bytes == sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert before.download_bytes == 0


def test_the_plan_in_words(tmp_path, put):
    source = put(tmp_path, [0, 3])
    planned = store.plan(source, [3])
    facts = dict(planned.facts())
    assert list(facts) == ["SAEs", "layers", "files", "store", "held", "to write", "memory", "time"]
    assert facts["layers"] == "1 of 2, 0 of them converted"
    assert facts["store"] == f"5.28 kB in bfloat16, {planned.folder}"
    assert planned.seconds > 0
    assert "measured just now" in facts["time"]
    store.open_store(source, [3]).close()
    assert list(dict(store.plan(source, [3]).facts())) == ["SAEs", "layers", "files", "store", "held"]


def test_what_is_not_there_is_refused(tmp_path, put):
    with pytest.raises(UserError, match="does not exist"):
        store.plan(tmp_path / "nothing")
    with pytest.raises(UserError, match="no SAE of layer 1"):
        store.plan(put(tmp_path, [0]), [1])


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (15_032_385_536, "15 GB"), (2.5e12, "2.5 TB")]
)
def test_sizes_in_words(count, text):
    assert size(count) == text
