"""Loading from folders, facts, shapes without weights, and every mistake a user makes with a model name."""

from __future__ import annotations

import copy
import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from qscope.errors import UserError
from qscope.models import check_hooks, choose_device, describe_model, load_model
from qscope.models.facts import fingerprint, guess_tuning
from qscope.v1.experiment_pb2 import DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA
from qscope.v1.model_pb2 import PRECISION_AUTO, PRECISION_BFLOAT16, ModelOptions

AUTO = ModelOptions(precision=PRECISION_AUTO)


def refusal(name, options=AUTO) -> UserError:
    with pytest.raises(UserError) as caught:
        load_model(str(name), options)
    assert caught.value.field == "model"
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_a_folder_loads_frozen_in_eval_mode_with_its_facts(tiny_folder):
    loaded = load_model(str(tiny_folder), AUTO)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    facts = loaded.facts
    assert (facts.architecture, facts.model_type, facts.n_layers, facts.d_model) == ("Qwen3ForCausalLM", "qwen3", 4, 32)
    assert (facts.dtype, facts.vocab_size) == ("float32", 300)
    assert facts.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert json.loads(json.dumps(facts.as_dict()))["fingerprint"] == facts.fingerprint
    assert loaded.tokenizer("the")["input_ids"]


def test_precision_is_obeyed(tiny_folder):
    loaded = load_model(str(tiny_folder), ModelOptions(precision=PRECISION_BFLOAT16))
    assert loaded.dtype == torch.bfloat16
    assert loaded.facts.dtype == "bfloat16"


def test_the_fingerprint_tells_weights_apart_and_is_stable(tiny_folder):
    first, second = (load_model(str(tiny_folder), AUTO) for _ in range(2))
    assert first.facts.fingerprint == second.facts.fingerprint
    with torch.no_grad():
        second.model.model.layers[2].mlp.up_proj.weight[0, 0] += 0.5
    assert fingerprint(second.model) != first.facts.fingerprint


def test_the_shape_is_known_without_weights(folder):
    loaded = load_model(str(folder), AUTO)
    (folder / "model.safetensors").unlink()
    shape = describe_model(str(folder), AUTO)
    assert (shape.n_layers, shape.d_model, shape.vocab_size) == (4, 32, 300)
    assert shape.parameters == loaded.facts.parameters
    assert shape.active_block_parameters == shape.block_parameters
    assert shape.weight_bytes == 4 * shape.parameters
    assert describe_model(str(folder), ModelOptions(precision=PRECISION_BFLOAT16)).bytes_per_parameter == 2


@pytest.mark.parametrize("family", ["qwen3_moe", "qwen3_5_moe", "qwen3_5_wrapper"])
def test_shapes_of_the_other_families(tiny_model, tmp_path, family):
    loaded = tiny_model(family)
    loaded.model.config.save_pretrained(tmp_path)
    shape = describe_model(str(tmp_path), AUTO)
    assert (shape.n_layers, shape.d_model) == (4, 32)
    assert shape.parameters == loaded.facts.parameters
    if "moe" in family:
        experts = sum(p.numel() for n, p in loaded.decoder.blocks.named_parameters() if ".experts." in n)
        assert experts > 0
        assert shape.active_block_parameters == shape.block_parameters - experts // 2


def test_a_checkpoint_of_the_image_wrapper_loads_as_its_text_model(tokenizer, tmp_path, tiny_model):
    from transformers import Qwen3_5ForConditionalGeneration

    text = tiny_model("qwen3_5").model.config.to_dict()
    config = AutoConfig.for_model(
        "qwen3_5",
        text_config=text,
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32},
    )
    wrapper = Qwen3_5ForConditionalGeneration(config).eval()
    wrapper.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), AUTO)
    assert loaded.facts.architecture == "Qwen3_5ForCausalLM"
    ids_BT = torch.arange(3, 13)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids_BT).logits, wrapper(ids_BT).logits)


@pytest.mark.parametrize(
    ("name", "model_type", "tuning"),
    [
        ("Qwen/Qwen3-1.7B-Base", "qwen3", "base"),
        ("Qwen/Qwen3-1.7B", "qwen3", "instruct"),
        ("Qwen/Qwen3.5-27B", "qwen3_5_text", "instruct"),
        ("/models/Qwen3.5-2B-Base", "qwen3_5_text", "base"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama", "instruct"),
        ("my-model", "qwen3", "unknown"),
        ("/data/database/model-x", "llama", "unknown"),
        ("embedded", "qwen3", "base"),
    ],
)
def test_base_or_instruct_is_guessed_from_the_name(name, model_type, tuning):
    assert guess_tuning(name, model_type) == tuning


def test_a_missing_folder_is_named(tmp_path):
    assert "no such folder" in refusal(tmp_path / "nothing").message


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert "a file" in refusal(tmp_path / "x.safetensors").message


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        (["config.json"], "MODEL_INCOMPLETE"),
        (["model.safetensors"], "MODEL_INCOMPLETE"),
        (["tokenizer.json", "tokenizer_config.json"], "TOKENIZER_MISSING"),
    ],
)
def test_an_incomplete_folder_is_refused(folder, missing, reason):
    for name in missing:
        (folder / name).unlink()
    assert refusal(folder).reason == reason


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_config_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    assert refusal(folder).reason == "MODEL_INCOMPLETE"


def test_an_unknown_architecture_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen99"}))
    assert refusal(folder).reason == "UNKNOWN_ARCHITECTURE"


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "abc"},
        {"hidden_size": -1},
        {"vocab_size": -1},
        {"head_dim": 7},
        {"rope_parameters": "abc"},
        {"layer_types": ["nonsense"] * 4},
        {"num_hidden_layers": 3.5},
        {"tie_word_embeddings": None},
        {"intermediate_size": 7},
        {"num_attention_heads": 0},
        {"hidden_act": "nonsense"},
    ],
)
def test_a_config_changed_by_hand_is_refused_in_one_line(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    error = refusal(folder)
    assert error.reason in ("UNKNOWN_ARCHITECTURE", "MODEL_INCOMPLETE")
    assert len(str(error)) < 450


def test_a_model_that_loads_but_cannot_run_is_caught_by_the_self_check(tiny_folder):
    loaded = load_model(str(tiny_folder), AUTO)
    loaded.model.model.layers[1].self_attn.head_dim = 7
    with pytest.raises(UserError) as caught:
        check_hooks(loaded)
    assert caught.value.reason == "MODEL_INCOMPLETE"


def test_a_model_that_is_no_decoder_is_refused(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert refusal(folder).reason == "UNKNOWN_ARCHITECTURE"


def test_damaged_weights_and_tokenizer_are_refused(folder):
    (folder / "tokenizer.json").write_text("{")
    assert refusal(folder).reason == "TOKENIZER_MISSING"


def test_a_tokenizer_of_another_model_is_refused(folder, tokenizer):
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"new {i}" for i in range(100)])
    larger.save_pretrained(folder)
    assert refusal(folder).reason == "TOKENIZER_MISMATCH"


def test_cut_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert refusal(folder).reason == "MODEL_INCOMPLETE"


def test_missing_weights_are_refused_where_transformers_would_make_them_up(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "up_proj" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert name in refusal(folder).message


def test_an_offline_hub_id_is_refused_at_once(monkeypatch):
    started = time.monotonic()
    error = refusal("someone/no-such-model", ModelOptions(precision=PRECISION_AUTO, offline=True))
    assert error.reason == "MODEL_UNREACHABLE"
    assert "embedded" in error.remedy
    assert time.monotonic() - started < 20, "no retries"


def test_an_unreachable_hub_is_refused_without_retries(monkeypatch):
    import httpx
    from huggingface_hub import HfApi

    def unreachable(self, *args, timeout, **kwargs):
        assert timeout <= 10
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    assert refusal("someone/no-such-model").reason == "MODEL_UNREACHABLE"


def test_device_choice():
    assert choose_device(DEVICE_CPU).type == "cpu"
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(DEVICE_AUTO).type == expected
    if expected == "cpu":
        with pytest.raises(UserError) as caught:
            choose_device(DEVICE_CUDA)
        assert caught.value.reason == "NO_GPU"
