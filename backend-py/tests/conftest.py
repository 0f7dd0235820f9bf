"""Tiny instances of the real classes: a byte tokenizer with Qwen's special tokens, random models of every family."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers import GPT2Config as Gpt2Config
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5Config, Qwen3_5TextConfig
from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeConfig, Qwen3_5MoeTextConfig

from qscope.models import LoadedModel, wrap_model

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_SIZE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LINEAR = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}
_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
TINY_CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen3": lambda: Qwen3Config(**_SIZE),
    "qwen3_moe": lambda: Qwen3MoeConfig(**_SIZE, **_EXPERTS),
    "qwen3_5": lambda: Qwen3_5TextConfig(**_SIZE, **_LINEAR),
    "qwen3_5_moe": lambda: Qwen3_5MoeTextConfig(**_SIZE, **_LINEAR, **_EXPERTS, shared_expert_intermediate_size=24),
    "qwen3_5_wrapper": lambda: Qwen3_5Config(text_config={**_SIZE, **_LINEAR}),
    "qwen3_5_images": lambda: Qwen3_5Config(text_config={**_SIZE, **_LINEAR}, vision_config=_VISION),
    "qwen3_5_moe_images": lambda: Qwen3_5MoeConfig(
        text_config={**_SIZE, **_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 24}, vision_config=_VISION
    ),
    "llama": lambda: LlamaConfig(**_SIZE),
    "gpt2": lambda: Gpt2Config(vocab_size=300, n_embd=32, n_layer=4, n_head=2, bos_token_id=0, eos_token_id=0),
}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, two merges and three special tokens; every string encodes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet, "th", "the"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("th", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL
    )


@pytest.fixture(scope="session")
def tiny_model(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], LoadedModel]:
    """``tiny_model(family)``: a random model of four layers and width 32, the same for every test that asks."""
    made: dict[str, LoadedModel] = {}

    def make(family: str = "qwen3") -> LoadedModel:
        if family not in made:
            with torch.random.fork_rng():
                torch.manual_seed(5)
                # The wrappers with images, whose blocks lie one level deeper than those of their text models.
                kind = AutoModelForImageTextToText if family.endswith("_images") else AutoModelForCausalLM
                model = kind.from_config(TINY_CONFIGS[family]())
            made[family] = wrap_model(model, tokenizer, name=family)
        return made[family]

    return make


@pytest.fixture(scope="session")
def tiny_folder(tiny_model, tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 saved in Hugging Face layout."""
    folder = tmp_path_factory.mktemp("tiny-Qwen3")
    tiny_model("qwen3").model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def http_server() -> Iterator[Callable[..., str]]:
    """``http_server(answer)``: address of a server whose replies to POST are ``answer(request, headers)``.

    ``answer`` takes the JSON of the request (with its ``path``) and its headers by lower-case name, and returns status,
    headers and body (bytes, an iterator of them, or anything JSON holds).
    """
    servers = []

    def start(answer: Callable[[dict, dict], tuple[int, dict, object]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                request["path"] = self.path
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, more, body = answer(request, headers)
                self.send_response(status)
                if not isinstance(body, Iterator):
                    body = [body if isinstance(body, bytes) else json.dumps(body).encode()]
                    more = {"content-length": str(len(body[0])), **more}
                for name, value in more.items():
                    self.send_header(name, value)
                self.end_headers()
                # A client may have heard enough.
                with contextlib.suppress(ConnectionError):
                    for piece in body:
                        self.wfile.write(piece)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
