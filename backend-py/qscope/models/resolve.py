"""From a model name to a folder, or to a commit on the hub, with every mistake named within seconds."""

from __future__ import annotations

import json
import logging
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qscope.errors import UserError
from qscope.models.adapters import base_of, is_adapter
from qscope.v1.model_pb2 import ModelOptions

HUB_TIMEOUT_SECONDS = 10.0
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FIELD = "model"


@dataclass(frozen=True)
class ModelSource:
    """Where a model is read from.

    Attributes:
        name: the name the user gave.
        location: folder or hub id, for ``from_pretrained``.
        commit: commit on the hub; empty for folders.
        local_only: read from disk or cache only.
        adapter: folder of an adapter on that model; empty for the model itself.
        base: name of the model that the adapter is of; empty without one.
    """

    name: str
    location: str
    commit: str
    local_only: bool
    adapter: str = ""
    base: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments every ``from_pretrained`` shares; code shipped with a model is never run."""
        shared: dict[str, Any] = {"local_files_only": self.local_only, "trust_remote_code": False}
        return {**shared, "revision": self.commit} if self.commit else shared


def resolve(name: str, options: ModelOptions) -> ModelSource:
    """Finds a model: ``embedded``, an existing folder, or a hub id (pinned to its present commit).

    A folder may hold an adapter (PEFT): what is found then is the model it is of, and the adapter beside.

    Raises:
        UserError: MODEL_NOT_FOUND, MODEL_INCOMPLETE, MODEL_GATED or MODEL_UNREACHABLE, each with a remedy.
    """
    if name == "embedded":
        from qscope import embedded

        return ModelSource(name, str(_checked(Path(embedded.model_path()), name)), "", True)
    folder = Path(name).expanduser()
    if folder.is_dir() and is_adapter(folder):
        return _with_adapter(name, folder, options)
    if folder.is_dir():
        return ModelSource(name, str(_checked(folder, name)), "", True)
    if folder.exists():
        raise _error(f"{name}: a file, not a model folder.", "Name the folder that holds config.json.")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise _error(f"{name}: no such folder.", "Check the path; relative paths start at the experiment's folder.")
    return _on_hub(name, options)


def _with_adapter(name: str, folder: Path, options: ModelOptions) -> ModelSource:
    base, revision = base_of(folder, name)
    if is_adapter(Path(base).expanduser()):
        raise _error(f"{name}: an adapter of an adapter ({base}).", "Merge the first one into a model.", "ADAPTER_KIND")
    chosen = ModelOptions()
    chosen.CopyFrom(options)
    chosen.revision = revision
    try:
        found = resolve(base, chosen)
    except UserError as error:
        raise _error(
            f"{name}: the model that the adapter is of cannot be had: {error.message}",
            f"Put {base} back, or correct base_model_name_or_path in the adapter's adapter_config.json.",
            error.reason,
        ) from error
    return replace(found, name=name, adapter=str(folder), base=base)


def _checked(folder: Path, name: str) -> Path:
    config = folder / "config.json"
    if not config.is_file():
        raise _error(
            f"{name}: the folder has no config.json.",
            "Name a folder in Hugging Face layout (config.json, *.safetensors, tokenizer.json).",
            "MODEL_INCOMPLETE",
        )
    try:
        parsed = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _error(
            f"{name}: config.json is not readable JSON.", "Download or save the model again.", "MODEL_INCOMPLETE"
        ) from error
    if not isinstance(parsed, dict) or "model_type" not in parsed:
        raise _error(f"{name}: config.json names no model_type.", "Save the model again.", "MODEL_INCOMPLETE")
    return folder


def require_files(source: ModelSource) -> None:
    """Refuses a folder without weights or tokenizer before anything is loaded."""
    folder = Path(source.location)
    if source.commit or not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()}
    if not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise _error(
            f"{source.name}: the folder has no weights (*.safetensors).",
            "Download or save the model again.",
            "MODEL_INCOMPLETE",
        )
    if not names & {"tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model"}:
        raise _error(
            f"{source.name}: the folder has no tokenizer.",
            "Save it beside the model: tokenizer.save_pretrained(folder).",
            "TOKENIZER_MISSING",
        )


def _on_hub(name: str, options: ModelOptions) -> ModelSource:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    revision = options.revision or None
    why = "offline is set"
    if not options.offline:
        # One bounded question: from_pretrained alone would ask file by file, with retries.
        try:
            commit = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS).sha
            return ModelSource(name, name, commit or "", False)
        except GatedRepoError as error:
            raise _error(
                f"{name}: access to this model must be granted first.",
                f"Accept its terms at https://huggingface.co/{name} and set HF_TOKEN.",
                "MODEL_GATED",
            ) from error
        except HfHubHTTPError as error:
            if (error.response is None) or error.response.status_code < 500:
                which = f" at revision '{revision}'" if revision else ""
                raise _error(
                    f"{name}: neither a folder here nor a model the hub knows{which}.",
                    "Check the spelling of the path or the model id (and set HF_TOKEN for a private model).",
                ) from error
            why = "the hub has a fault"
        except (httpx.HTTPError, OfflineModeIsEnabled, OSError):
            why = "the hub cannot be reached"
    cached = _cached_commit(name, revision)
    if cached:
        return ModelSource(name, name, cached, True)
    raise _error(
        f"{name}: no folder of that name, not in the local cache, and {why}.",
        "Check the path or the network, or use model: embedded, which needs neither.",
        "MODEL_UNREACHABLE",
    )


def _cached_commit(name: str, revision: str | None) -> str:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else ""


def _error(message: str, remedy: str, reason: str = "MODEL_NOT_FOUND") -> UserError:
    return UserError(message, remedy=remedy, reason=reason, field=_FIELD)


def load_config(source: ModelSource) -> Any:
    """The model's config.

    Raises:
        UserError: the architecture is unknown to the installed transformers (UNKNOWN_ARCHITECTURE).
    """
    import transformers

    try:
        with quiet():
            return transformers.AutoConfig.from_pretrained(source.location, **source.arguments)
    except Exception as error:  # a config is input, and its validators raise a family of errors of their own
        raise _error(
            f"{source.name}: transformers {transformers.__version__} cannot read its config ({brief(error)}).",
            "Name a model of a supported architecture (Qwen3, Qwen3.5 and other plain decoders).",
            "UNKNOWN_ARCHITECTURE",
        ) from error


def brief(error: Exception) -> str:
    """The start of an error's message on one line, without its closing dot."""
    text = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(text, 200, placeholder=" ...").rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the progress bars and advice of transformers; faults are reported by this package itself."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
