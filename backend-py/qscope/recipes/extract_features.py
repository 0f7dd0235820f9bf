"""``qscope features extract``: the codes of every token and layer, to disk."""

from __future__ import annotations

import json
from typing import Any

from qscope.features.encoders import model_record, sae_record
from qscope.features.extract import extract
from qscope.models import LoadedModel
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import as_json, open_documents, open_model, tokens_text, warn_not_finite
from qscope.runs import RunContext
from qscope.runs.ledger import key_of
from qscope.runs.versions import versions
from qscope.v1.features_pb2 import ActivationFormat, ExtractFeatures, Rendering

AT = "extract_features"
#: Whose version decides numbers and tokens: another one must not go on with the shards of this.
LIBRARIES = ("torch", "transformers", "tokenizers")


def run(context: RunContext) -> None:
    """Extracts shard by shard; a resumed run goes on after the last whole shard, with the same bytes."""
    admit(context)
    task: ExtractFeatures = context.experiment.extract_features
    opened = open_model(context, task, at=AT)
    reader = open_documents(context, task, task.text, opened.loaded, at=AT, name="text")
    loaded = opened.loaded
    identity = {
        "model": as_json(model_record(loaded.facts)),
        "saes": [as_json(sae_record(sae)) for sae in opened.saes.values()],
        "text": reader.identity(),
        "context": task.text.context,
        "documents_wanted": task.documents,
        "tokens_text": tokens_text(task),
        "rendering": as_json(task.rendering),
        "masks": as_json(task.masks),
        "dtype": {"model": loaded.facts.dtype, "encoder": "float32", "value": "float32"},
        **reading_record(loaded, task.rendering),
    }
    facts = {"sae": opened.place, "versions": versions()}
    total = task.documents

    def on_progress(done: int) -> None:
        context.progress("extracting", done, max(total, done), "documents")

    folder = context.artifacts / "activations"
    manifest = extract(
        loaded,
        opened.saes,
        reader,
        folder,
        identity=identity,
        facts=facts,
        documents=task.documents,
        shard_documents=task.shard_documents,
        layout=ActivationFormat.Name(task.format).removeprefix("ACTIVATION_FORMAT_").lower(),
        batch_tokens=task.model_batch_tokens,
        on_progress=on_progress,
        should_stop=lambda: context.stop_requested,
    )
    if manifest is None:
        context.stop(0)
    warn_not_finite(context, manifest["tokens_not_finite"])
    per_token = manifest["codes"] / max(1, manifest["tokens_counted"] * len(opened.saes))
    context.info(
        f"{manifest['documents']:,} documents, {manifest['tokens_counted']:,} of {manifest['tokens']:,} tokens count,"
        f" {manifest['codes']:,} codes ({per_token:.1f} a token and layer) in {len(manifest['shards'])} shards"
    )
    context.artifact(folder, kind="activations", description=f"{manifest['codes']:,} codes, {manifest['layout']}")


def reading_record(loaded: LoadedModel, rendering: Rendering) -> dict[str, Any]:
    """What besides weights and text decides the numbers that are read: another must not go on with shards of this."""
    return {
        "tokenizer": tokenizer_record(loaded.tokenizer),
        "chat_template": loaded.tokenizer.chat_template if rendering.chat else "",
        "device_type": loaded.device.type,
        "attention": getattr(loaded.model.config, "_attn_implementation", ""),
        "libraries": {name: version for name, version in versions().items() if name in LIBRARIES},
    }


def tokenizer_record(tokenizer: Any) -> dict[str, str]:
    """Class of a tokenizer and a digest of what decides its tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = sorted(tokenizer.get_vocab().items())
    else:
        rules = json.loads(backend.to_str())
        # How the last call cut and padded is no part of the tokenizer, though it is kept there.
        rules = {name: value for name, value in rules.items() if name not in ("truncation", "padding")}
    return {"class": type(tokenizer).__name__, "sha256": key_of(rules)}
