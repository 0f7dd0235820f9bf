"""Whether SAEs and a model belong together: what the SAEs say of their model against the model that was loaded.

A residual width is shared by models that have nothing else in common (Qwen3-1.7B, Qwen3.5-2B and both A3B models have
2,048 dimensions), so an SAE of another model runs without an error and means nothing. The rules are a table; each looks
at one fact and is silent where the fact is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from qscope.errors import UserError
from qscope.models import ModelFacts
from qscope.models.facts import guess_tuning
from qscope.sae.formats import LAYOUTS, Description, ReleaseName, parse_name, refuse_if_foreign
from qscope.sae.formats.releases import model_behind

_FAMILY = re.compile(
    r"(?P<family>Qwen3(?:\.5)?-\d+(?:\.\d+)?B(?P<moe>-A\d+(?:\.\d+)?B)?)(?![A-Za-z0-9.])", re.IGNORECASE
)

BASE_ON_INSTRUCT = "measured on Qwen3.5-2B at layer 12, FVU rises mildly, from 0.198 to 0.205"
"""What base SAEs cost on instruct weights, by others: scasella/qwen-scope-lab."""


@dataclass(frozen=True)
class SaeFacts:
    """What is known of a group of SAEs without its weights.

    Attributes:
        name: folder or repository.
        saes: facts by layer.
    """

    name: str
    saes: Mapping[int, Description]

    @property
    def named(self) -> ReleaseName | None:
        """What the name says, where it follows the release's rule; ``NAME/native`` is named by ``NAME``."""
        parts = [part for part in PurePosixPath(self.name).parts if part not in LAYOUTS]
        return parse_name(parts[-1]) if parts else None


@dataclass(frozen=True)
class _Pair:
    """Two sides of one comparison; ``known`` is what the SAE, or else its name, says of its model."""

    named: ReleaseName | None
    sae: Description
    known: Mapping[str, Any]
    model: ModelFacts


@dataclass(frozen=True)
class Rule:
    """One fact compared.

    Attributes:
        reason: identifier of the refusal or warning.
        finds: the sentence about a mismatch, without its full stop; None when there is none or nothing is known.
        refuses: True for a refusal, False for a warning.
    """

    reason: str
    finds: Callable[[_Pair], str | None]
    refuses: bool


def family(name: str) -> str:
    """``Qwen3-30B-A3B`` from ``Qwen/Qwen3-30B-A3B-Base``; empty for names of other kinds."""
    match = _FAMILY.search(PurePosixPath(name).name)
    return match["family"].lower().replace("qwen", "Qwen").replace("b", "B").replace("-a", "-A") if match else ""


def _other_family(pair: _Pair) -> str | None:
    trained_on, loaded = family(_text(pair, "name")), family(pair.model.name)
    if trained_on and loaded and trained_on != loaded:
        return f"The SAEs were trained on {trained_on}, and the model is {loaded}"
    return None


def _other_type(pair: _Pair) -> str | None:
    trained_on = _text(pair, "model_type")
    if trained_on and trained_on != pair.model.model_type:
        return f"The SAEs were trained on a model of type {trained_on}, and this one is {pair.model.model_type}"
    return None


def _other_depth(pair: _Pair) -> str | None:
    layers = pair.known.get("n_layers")
    if isinstance(layers, int) and layers != pair.model.n_layers:
        return f"The SAEs were trained on a model of {layers} layers, and this one has {pair.model.n_layers}"
    return None


def _dense_or_experts(pair: _Pair) -> str | None:
    match = _FAMILY.search(_text(pair, "name"))
    if match is None or not pair.model.model_type.startswith("qwen3"):
        return None
    trained_on, loaded = match["moe"] is not None, "moe" in pair.model.model_type
    if trained_on == loaded:
        return None
    words = {True: "a mixture of experts", False: "a dense model"}
    return f"The SAEs were trained on {words[trained_on]}, and this is {words[loaded]}"


def _other_tuning(pair: _Pair) -> str | None:
    # SAEs of other trainers give a name at most.
    name = _text(pair, "name")
    trained_on = _text(pair, "tuning") or guess_tuning(name, "qwen3" if family(name) else "")
    loaded = pair.model.tuning
    if (trained_on, loaded) == ("base", "instruct"):
        return f"The SAEs were trained on the base model and this one is instruction-tuned ({BASE_ON_INSTRUCT})"
    if (trained_on, loaded) == ("instruct", "base"):
        return "The SAEs were trained on the instruction-tuned model and this is the base model"
    return None


def _other_weights(pair: _Pair) -> str | None:
    # The digest is of the weights in the number format they were loaded in: two formats cannot be compared.
    if _text(pair, "fingerprint") and _text(pair, "dtype") == pair.model.dtype:
        if _text(pair, "fingerprint") == pair.model.fingerprint:
            return None
        return f"The weights of {pair.model.name} are not those the SAEs were trained on"
    commit = _text(pair, "commit")
    if commit and pair.model.commit and commit != pair.model.commit:
        return f"The SAEs were trained on commit {commit[:12]} of the model, and this is {pair.model.commit[:12]}"
    return None


def _other_name(pair: _Pair) -> str | None:
    """Of use only where no digest can be compared: a copy in another folder is the same model."""
    trained_on = _text(pair, "name")
    if not trained_on or _last(trained_on).lower() == _last(pair.model.name).lower():
        return None
    if _text(pair, "fingerprint") and _text(pair, "dtype") == pair.model.dtype:
        return None
    return f"Nothing shows that {pair.model.name} has the weights of {trained_on}, on which the SAEs were trained"


def _other_width_than_named(pair: _Pair) -> str | None:
    if pair.named is not None and pair.named.d_sae != pair.sae.d_sae:
        return f"The folder's name promises {pair.named.d_sae:,} features, and the SAE has {pair.sae.d_sae:,}"
    return None


def _other_k_than_named(pair: _Pair) -> str | None:
    if pair.named is not None and pair.named.k != pair.sae.k:
        return f"The folder's name promises k {pair.named.k}, and the SAE itself says {pair.sae.k}, which is used"
    return None


REFUSES, WARNS = True, False
RULES: tuple[Rule, ...] = (
    Rule("SAE_FILE_DAMAGED", _other_width_than_named, REFUSES),
    Rule("SAE_OF_ANOTHER_MODEL", _other_family, REFUSES),
    Rule("SAE_OF_ANOTHER_MODEL", _dense_or_experts, REFUSES),
    Rule("SAE_OF_ANOTHER_MODEL", _other_type, REFUSES),
    Rule("SAE_OF_ANOTHER_MODEL", _other_depth, REFUSES),
    Rule("SAE_K_CONTRADICTS", _other_k_than_named, WARNS),
    Rule("SAE_OF_OTHER_TUNING", _other_tuning, WARNS),
    Rule("SAE_OF_OTHER_WEIGHTS", _other_weights, WARNS),
    Rule("SAE_MODEL_UNPROVEN", _other_name, WARNS),
)
"""Asked in this order; the first refusal wins. Width and layer numbers are ``formats.refuse_if_foreign``'s."""

_ONE_OF = ("SAE_OF_OTHER_TUNING", "SAE_OF_OTHER_WEIGHTS", "SAE_MODEL_UNPROVEN")
"""Of these only the first is said: other tuning implies other weights."""


def check_pair(sae_facts: SaeFacts, model_facts: ModelFacts, *, field: str = "") -> list[str]:
    """Refuses SAEs of another model, and warns of those that fit less well than they could.

    Args:
        sae_facts: from ``SaeStore.facts`` or ``store.read_facts``.
        model_facts: of the loaded model.
        field: the experiment's field that names the SAEs.

    Returns:
        Warnings, each a sentence; none twice.

    Raises:
        UserError: another width, depth, family or kind of model (SAE_OF_ANOTHER_MODEL).
    """
    refuse_if_foreign(sae_facts.saes, model_facts, field=field)
    named = sae_facts.named
    warnings: dict[str, None] = {}
    for sae in sae_facts.saes.values():
        known = sae.model or (model_behind(named) if named else {})
        pair, said = _Pair(named, sae, known, model_facts), set[str]()
        for rule in RULES:
            sentence = rule.finds(pair)
            if sentence is None:
                continue
            if rule.refuses:
                raise UserError(f"{sentence}.", remedy=_remedy(pair, rule), reason=rule.reason, field=field)
            if rule.reason not in _ONE_OF or not said & set(_ONE_OF):
                warnings[f"{sentence}."] = None
            said.add(rule.reason)
    return list(warnings)


def _remedy(pair: _Pair, rule: Rule) -> str:
    if rule.reason == "SAE_FILE_DAMAGED":
        return "Fetch the files again, or give the folder the name that fits."
    named = _text(pair, "name")
    return f"Load {named}, or name the SAEs of {pair.model.name}." if named else "Name the model they were trained on."


def _text(pair: _Pair, key: str) -> str:
    value = pair.known.get(key)
    return value if isinstance(value, str) else ""


def _last(name: str) -> str:
    return PurePosixPath(name).name
