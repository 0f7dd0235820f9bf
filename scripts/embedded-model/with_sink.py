"""Writes a copy of the embedded model in which one token carries activations of extreme norm, as attention sinks do.

    backend-py/.venv/bin/python scripts/embedded-model/with_sink.py OUT [--ratio 100] [--share 0.01]

The embedded model is too small to have grown a sink of its own; Qwen's do, on the first token and on delimiters. Here
the embedding of one token, about ``share`` of the text, is enlarged until its norm is ``ratio`` times the median norm
of the residual stream after the last block. The RMS norms in front of attention and MLP see the direction only, so the
rest of the model works on; the head keeps the old rows (untied), else that token's logit would grow alike. This is a
stand-in to test filters with, not a model of how sinks come about.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from qscope.data import TokenStream, open_text
from qscope.models import capture_residuals, load_model
from qscope.v1 import model_pb2, text_pb2

SAMPLE_SEQUENCES, CONTEXT = 32, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write, in Hugging Face layout")
    parser.add_argument("--ratio", type=float, default=100, help="norm of the token over the median of the last block")
    parser.add_argument("--share", type=float, default=0.01, help="how frequent the token should be")
    given = parser.parse_args()

    loaded = load_model("embedded", model_pb2.ModelOptions(precision=model_pb2.PRECISION_FLOAT32))
    source = text_pb2.TextSource(source="embedded-heldout", field="text", split="train")
    stream = TokenStream(open_text(source), loaded.tokenizer, context=CONTEXT, pack=True, repeat=False)
    ids_BT = stream.next_batch(SAMPLE_SEQUENCES).input_ids_BT
    counts_V = torch.bincount(ids_BT.flatten(), minlength=loaded.facts.vocab_size)
    token = int((counts_V - given.share * ids_BT.numel()).abs().argmin())

    model, last = loaded.model, loaded.facts.n_layers - 1
    head = torch.nn.Linear(loaded.facts.d_model, loaded.facts.vocab_size, bias=False)
    head.weight = torch.nn.Parameter(model.get_output_embeddings().weight.detach().clone(), requires_grad=False)
    model.set_output_embeddings(head)
    model.config.tie_word_embeddings = False
    row_D = model.get_input_embeddings().weight.data[token]
    median = capture_residuals(loaded, [last], ids_BT)[last].norm(dim=-1).median()
    row_D *= given.ratio * median / row_D.norm()

    norms_BT = capture_residuals(loaded, [last], ids_BT)[last].norm(dim=-1)
    model.save_pretrained(given.out)
    loaded.tokenizer.save_pretrained(given.out)
    share = counts_V[token] / ids_BT.numel()
    ratio = norms_BT[ids_BT == token].median() / norms_BT.median()
    print(f"token {token} {loaded.tokenizer.decode([token])!r}, {share:.2%} of the text: norm {ratio:.0f} x the median")


if __name__ == "__main__":
    main()
