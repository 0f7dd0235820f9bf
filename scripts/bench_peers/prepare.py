"""Tokenises the text once: what the peers train on, and the held-out tokens that all are measured on.

Usage: prepare.py REQUEST.json, with keys model, text, heldout, context, train_sequences, heldout_sequences, output.
Runs in qscope's environment; prints the facts of the model as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from qscope import embedded
from qscope.data import TokenStream, open_text
from qscope.models import load_model
from qscope.v1 import model_pb2, text_pb2

request = json.loads(Path(sys.argv[1]).read_text())
loaded = load_model(request["model"], model_pb2.ModelOptions(precision=model_pb2.PRECISION_FLOAT32))
for name in ("train", "heldout"):
    source = text_pb2.TextSource(source=request[name], field="text", split="train")
    stream = TokenStream(
        open_text(source), loaded.tokenizer, context=request["context"], pack=True, repeat=name == "train"
    )
    batch = stream.next_batch(request[f"{name}_sequences"])
    ids = batch.input_ids_BT.numpy()
    if ids.shape[1] < request["context"] or not batch.attention_mask_BT.all():
        ids = ids[batch.attention_mask_BT.all(1).numpy()]
    np.save(Path(request["output"]) / f"{name}.npy", ids.astype(np.int32))
facts = loaded.facts
print(
    json.dumps(
        {
            "d_in": facts.d_model,
            "n_layers": facts.n_layers,
            "parameters": facts.parameters,
            "folder": str(embedded.model_path()) if request["model"] == embedded.MODEL_NAME else request["model"],
        }
    )
)
