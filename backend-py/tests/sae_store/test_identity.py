"""Which pairs of SAEs and models are refused, which draw a warning, and which pass."""

from __future__ import annotations

import re

import pytest

from qscope.errors import UserError
from qscope.models import ModelFacts
from qscope.sae.formats import RELEASES, Description
from qscope.sae.formats.releases import model_behind, parse_name
from qscope.sae.identity import SaeFacts, check_pair, family


def model(name: str, *, layers: int, width: int, kind: str, tuning: str = "base", **more: str) -> ModelFacts:
    facts = {
        "commit": "",
        "architecture": "X",
        "vocab_size": 9,
        "dtype": "bfloat16",
        "parameters": 9,
        "fingerprint": "f",
    }
    return ModelFacts(name=name, n_layers=layers, d_model=width, model_type=kind, tuning=tuning, **{**facts, **more})


QWEN3_17B = model("Qwen/Qwen3-1.7B-Base", layers=28, width=2048, kind="qwen3")
QWEN3_17B_INSTRUCT = model("Qwen/Qwen3-1.7B", layers=28, width=2048, kind="qwen3", tuning="instruct")
QWEN3_06B = model("Qwen/Qwen3-0.6B-Base", layers=28, width=1024, kind="qwen3")
QWEN35_2B = model("Qwen/Qwen3.5-2B-Base", layers=24, width=2048, kind="qwen3_5_text")
QWEN3_A3B = model("Qwen/Qwen3-30B-A3B-Base", layers=48, width=2048, kind="qwen3_moe")
UNNAMED = model("/data/checkpoint-300", layers=28, width=2048, kind="qwen3", tuning="unknown")
UNNAMED_MOE = model("/data/checkpoint-300", layers=28, width=2048, kind="qwen3_moe", tuning="unknown")
FINE_TUNED = model("me/Qwen3-1.7B-Base-medical", layers=28, width=2048, kind="qwen3")


def released(name: str, layer: int = 12, **changed: int) -> SaeFacts:
    """Facts as read from a file of the release."""
    named = parse_name(name)
    release = next(release for release in RELEASES if release.name == name)
    facts = {"d_in": release.d_in, "d_sae": named.d_sae, "k": named.k, **changed}
    return SaeFacts(f"Qwen/{name}", {layer: Description(layer, model=model_behind(named), **facts)})


def trained(**known: str | int) -> SaeFacts:
    """Facts as train-sae records them."""
    facts = QWEN3_17B.as_dict() | {"name": "/models/mine", "fingerprint": "f"} | known
    return SaeFacts("/runs/latest/artifacts/sae/native", {12: Description(12, 2048, 32768, 50, facts)})


def unsigned(folder: str, **known: str) -> SaeFacts:
    """Facts of SAEs that say little or nothing of their model."""
    return SaeFacts(folder, {12: Description(12, 2048, 32768, 50, known)})


QWEN3_SAE = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
QWEN35_SAE = "SAE-Res-Qwen3.5-2B-Base-W32K-L0_50"
A3B_SAE = "SAE-Res-Qwen3-30B-A3B-Base-W32K-L0_50"
INSTRUCT_SAE = "SAE-Res-Qwen3.5-27B-W80K-L0_50"
QWEN35_27B = model("Qwen/Qwen3.5-27B", layers=64, width=5120, kind="qwen3_5_text", tuning="instruct")
QWEN35_27B_BASE = model("Qwen/Qwen3.5-27B-Base", layers=64, width=5120, kind="qwen3_5_text")
MINE = model("/models/mine", layers=28, width=2048, kind="qwen3")

PASS = [
    pytest.param(released(QWEN3_SAE), QWEN3_17B, id="the model it was trained on"),
    pytest.param(released(QWEN35_SAE), QWEN35_2B, id="hybrid"),
    pytest.param(released(A3B_SAE, 47), QWEN3_A3B, id="experts"),
    pytest.param(released(INSTRUCT_SAE), QWEN35_27B, id="instruct on instruct"),
    pytest.param(released(QWEN3_SAE), model("/x/qwen3-1.7b-base", layers=28, width=2048, kind="qwen3"), id="a copy"),
    pytest.param(trained(), MINE, id="own SAE, own model"),
    pytest.param(trained(name="/elsewhere/copy"), MINE, id="moved, same digest"),
    pytest.param(trained(dtype="float32", fingerprint="g"), MINE, id="digests of two number formats say nothing"),
    pytest.param(SaeFacts("x", {0: Description(0, 2048, 64, 8)}), QWEN3_17B, id="nothing known but the width"),
    pytest.param(unsigned(f"/x/{QWEN3_SAE}/native"), QWEN3_17B, id="known by the folder's name"),
]

REFUSED = [
    pytest.param(released(QWEN3_SAE), QWEN3_06B, "reads 2048 dimensions, and the model has 1024", id="width"),
    pytest.param(released(A3B_SAE, 40), QWEN3_17B, "SAE of layer 40.*0 to 27", id="layer beyond the last"),
    pytest.param(released(QWEN3_SAE), QWEN35_2B, "on Qwen3-1.7B, and the model is Qwen3.5-2B", id="family, same width"),
    pytest.param(released(QWEN35_SAE), QWEN3_17B, "on Qwen3.5-2B, and the model is Qwen3-1.7B", id="family, reversed"),
    pytest.param(released(A3B_SAE), QWEN3_17B, "on Qwen3-30B-A3B, and the model", id="experts and dense by name"),
    pytest.param(released(QWEN3_SAE), UNNAMED_MOE, "on a dense model, and this is a mixture", id="dense and experts"),
    pytest.param(released(A3B_SAE), UNNAMED, "on a mixture of experts, and this is a dense", id="experts and dense"),
    pytest.param(released(QWEN35_SAE), UNNAMED, "model of 24 layers, and this one has 28", id="depth"),
    pytest.param(trained(model_type="llama"), MINE, "type llama, and this one is qwen3", id="type"),
    pytest.param(trained(n_layers=36), MINE, "model of 36 layers", id="depth from the recipe"),
    pytest.param(unsigned(f"/x/{QWEN3_SAE}"), QWEN35_2B, "on Qwen3-1.7B, and", id="family by the folder's name"),
    pytest.param(unsigned("/x", name="qwen3-1.7b"), QWEN35_2B, "on Qwen3-1.7B, and", id="family by SAELens' name"),
    pytest.param(released(QWEN3_SAE, d_sae=65536), QWEN3_17B, "promises 32,768 features, and .* 65,536", id="renamed"),
]

WARNED = [
    pytest.param(released(QWEN3_SAE), QWEN3_17B_INSTRUCT, ["instruction-tuned .*0.198 to 0.205"], id="base, instruct"),
    pytest.param(
        unsigned("/x", name="Qwen/Qwen3-1.7B-Base"), QWEN3_17B_INSTRUCT, ["instruction-tuned"], id="tuning by name"
    ),
    pytest.param(released(INSTRUCT_SAE), QWEN35_27B_BASE, ["and this is the base model"], id="instruct, base"),
    pytest.param(released(QWEN3_SAE, k=32), QWEN3_17B, ["promises k 50, and the SAE itself says 32"], id="another k"),
    pytest.param(trained(fingerprint="g"), MINE, ["are not those the SAEs were trained on"], id="digest"),
    pytest.param(
        trained(fingerprint="", commit="a" * 40),
        model("/models/mine", layers=28, width=2048, kind="qwen3", commit="b" * 40),
        ["commit aaaaaaaaaaaa of the model, and this is bbbbbbbbbbbb"],
        id="commit",
    ),
    pytest.param(
        trained(fingerprint="g"),
        model("/models/mine", layers=28, width=2048, kind="qwen3", tuning="instruct"),
        ["instruction-tuned"],
        id="other tuning is not said twice",
    ),
    pytest.param(released(QWEN3_SAE), UNNAMED, ["Nothing shows that /data/checkpoint-300 has"], id="unknown folder"),
    pytest.param(released(QWEN3_SAE), FINE_TUNED, ["Nothing shows that me/Qwen3-1.7B-Base-medical"], id="fine-tuned"),
    pytest.param(trained(dtype="float32", name="a"), MINE, ["Nothing shows that"], id="neither name nor digest"),
]


@pytest.mark.parametrize(("saes", "loaded"), PASS)
def test_pairs_that_pass(saes, loaded):
    assert check_pair(saes, loaded) == []


@pytest.mark.parametrize(("saes", "loaded", "words"), REFUSED)
def test_pairs_that_are_refused(saes, loaded, words):
    with pytest.raises(UserError, match=words) as caught:
        check_pair(saes, loaded, field="steer.sae")
    assert caught.value.field == "steer.sae"
    assert caught.value.reason in ("SAE_OF_ANOTHER_MODEL", "SAE_FILE_DAMAGED")
    assert caught.value.remedy.endswith(".")
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(("saes", "loaded", "words"), WARNED)
def test_pairs_that_draw_a_warning(saes, loaded, words):
    warnings = check_pair(saes, loaded)
    assert len(warnings) == len(words)
    for warning, expected in zip(warnings, words, strict=True):
        assert re.search(expected, warning)
        assert warning.endswith(".")


def test_every_layer_is_looked_at_and_no_sentence_comes_twice():
    facts = released(QWEN3_SAE)
    many = SaeFacts(
        facts.name, {layer: Description(layer, 2048, 32768, 50, facts.saes[12].model) for layer in range(28)}
    )
    assert len(check_pair(many, QWEN3_17B_INSTRUCT)) == 1
    many.saes[7] = Description(7, 1024, 32768, 50)
    with pytest.raises(UserError, match="layer 7 reads 1024"):
        check_pair(many, QWEN3_17B)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_every_group_of_the_release_fits_its_backbone_alone(release):
    generation = "qwen3_5" if "3.5" in release.model else "qwen3"
    kind = generation + ("_moe" if "A3B" in release.model else "") + ("_text" if generation == "qwen3_5" else "")
    tuning = "instruct" if release.instruct else "base"
    own = model(release.model_id, layers=release.layers, width=release.d_in, kind=kind, tuning=tuning)
    for other in RELEASES:
        facts = released(other.name, layer=3)
        if other.model == release.model:
            assert check_pair(facts, own) == []
        else:
            with pytest.raises(UserError):
                check_pair(facts, own)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-1.7B-Base", "Qwen3-1.7B"),
        ("qwen3-30b-a3b-instruct-2507", "Qwen3-30B-A3B"),
        ("/data/models/Qwen3.5-35B-A3B", "Qwen3.5-35B-A3B"),
        ("me/my-Qwen3-8B_v2", "Qwen3-8B"),
        ("Qwen2.5-7B", ""),
        ("Qwen3-8Bit", ""),
        ("embedded", ""),
        ("/Qwen3-8B/checkpoint", ""),
    ],
)
def test_families_by_name(name, expected):
    assert family(name) == expected
