"""An adapter is loaded as the model it makes of its base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from qscope import embedded
from qscope.errors import UserError
from qscope.models import check_hooks, describe_model, load_model
from qscope.v1.model_pb2 import PRECISION_AUTO, ModelOptions

AUTO = ModelOptions(precision=PRECISION_AUTO)
IDS_BT = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(2))


def _adapt(base: Path | str, folder: Path) -> Path:
    """An adapter with weights that do something."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
    )
    noise = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=noise))
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def saved(tiny_folder, tmp_path_factory) -> Path:
    return _adapt(tiny_folder, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def adapter(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "adapter")


def test_it_computes_what_the_adapted_model_computes(adapter, tiny_folder):
    loaded, base = load_model(str(adapter), AUTO), load_model(str(tiny_folder), AUTO)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), adapter).eval()
    with torch.no_grad():
        ours_BTV, plain_BTV = loaded.model(IDS_BT).logits, base.model(IDS_BT).logits
        beside_BTV = adapted(IDS_BT).logits
        merged_BTV = adapted.merge_and_unload()(IDS_BT).logits
    assert torch.equal(ours_BTV, merged_BTV)
    torch.testing.assert_close(ours_BTV, beside_BTV, rtol=1e-4, atol=1e-5)
    assert (ours_BTV - plain_BTV).abs().max() > 0.1
    check_hooks(loaded)


def test_its_facts_name_both_and_its_tokenizer_comes_with_it(adapter, tiny_folder):
    loaded, base = load_model(str(adapter), AUTO), load_model(str(tiny_folder), AUTO)
    facts = loaded.facts
    assert (facts.name, facts.base, base.facts.base) == (str(adapter), str(tiny_folder), "")
    assert (facts.architecture, facts.parameters) == ("Qwen3ForCausalLM", base.facts.parameters)
    assert facts.fingerprint != base.facts.fingerprint
    shape = describe_model(str(adapter), AUTO)
    assert (shape.name, shape.parameters) == (str(adapter), base.facts.parameters)
    assert loaded.tokenizer.chat_template == base.tokenizer.chat_template
    base.tokenizer.chat_template = "{{ messages }}"
    base.tokenizer.save_pretrained(adapter)
    assert load_model(str(adapter), AUTO).tokenizer.chat_template == "{{ messages }}"


def test_one_of_the_embedded_model_does_not_hang_on_where_that_lies(tmp_path):
    folder = _adapt(embedded.model_path(), tmp_path / "adapter")
    assert load_model(str(folder), AUTO).facts.base == "embedded"


def _edit(adapter: Path, **changes: object) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("fault", "reason", "said"),
    [
        (lambda folder: _edit(folder, base_model_name_or_path="./gone"), "MODEL_NOT_FOUND", "./gone"),
        (lambda folder: _edit(folder, base_model_name_or_path=str(folder)), "ADAPTER_KIND", "an adapter of"),
        (lambda folder: _edit(folder, base_model_name_or_path=None), "MODEL_INCOMPLETE", "which model"),
        (lambda folder: _edit(folder, peft_type="IA3"), "ADAPTER_KIND", "IA3"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "MODEL_INCOMPLETE", "which model"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "MODEL_INCOMPLETE", "no weights"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"{}"), "MODEL_INCOMPLETE", "fit"),
        (lambda folder: _edit(folder, r=5), "MODEL_INCOMPLETE", "fit"),
        (lambda folder: _edit(folder, target_modules=["q_proj", "up_proj"]), "MODEL_INCOMPLETE", "does not take"),
        (lambda folder: _drop(folder), "MODEL_INCOMPLETE", "has no weights for .*lora_A"),
    ],
)
def test_every_mistake_is_told_in_one_sentence(adapter, fault, reason, said):
    fault(adapter)
    with pytest.raises(UserError, match=said) as caught:
        load_model(str(adapter), AUTO)
    assert (caught.value.reason, caught.value.field) == (reason, "model")
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def _drop(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
