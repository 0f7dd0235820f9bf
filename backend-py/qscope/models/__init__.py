"""Language models: loading, where their blocks are, capture and edit hooks."""

from qscope.models.architectures import select_layers
from qscope.models.device import available_memory, choose_device, choose_dtype, use_threads
from qscope.models.facts import ModelFacts, ModelShape, describe_model
from qscope.models.hooks import UpperBlocks, capture_residuals, check_hooks, edit_residual, logits_of
from qscope.models.loading import LoadedModel, load_model, load_tokenizer, wrap_model

__all__ = [
    "LoadedModel",
    "ModelFacts",
    "ModelShape",
    "UpperBlocks",
    "available_memory",
    "capture_residuals",
    "check_hooks",
    "choose_device",
    "choose_dtype",
    "describe_model",
    "edit_residual",
    "load_model",
    "load_tokenizer",
    "logits_of",
    "select_layers",
    "use_threads",
    "wrap_model",
]
