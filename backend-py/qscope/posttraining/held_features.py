"""From a file of language features to what the SAE loss holds down: layers, features, thresholds, languages of rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import torch

from qscope.errors import UserError
from qscope.features.encoders import sae_record
from qscope.features.files import group_of, refuse_other_sae
from qscope.models import ModelFacts
from qscope.posttraining.feature_rows import FeatureRows
from qscope.posttraining.sae_loss import UNTAGGED, HeldFeatures
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet

AT = "sft.sae_loss"


class Threshold(StrEnum):
    """Where a pre-activation begins to count."""

    #: Above its mean on the row's language before training.
    MEAN = "mean"
    #: Above 0: most of a rise below it passes, since means are mostly negative (SASFT_zero, worse in the ablation).
    ZERO = "zero"


def loss_layers(requested: Sequence[int], n_layers: int, available: Iterable[int], *, at: str = AT) -> list[int]:
    """The layers of the loss, ascending; none requested means the last two.

    Args:
        requested: decoder blocks, from 0.
        n_layers: decoder blocks of the model.
        available: layers of which features are known.
        at: field of the loss, or of whoever else asks, for errors.

    Raises:
        UserError: a layer that the model does not have (LAYER_OUT_OF_RANGE) or of which no feature is known
            (FEATURES_NOT_FOUND).
    """
    known = sorted(set(available))
    for index, layer in enumerate(requested):
        if not 0 <= layer < n_layers:
            raise UserError(
                f"Layer {layer} does not exist: the model has {n_layers} layers, numbered 0 to {n_layers - 1}.",
                remedy=f"Choose layers from 0 to {n_layers - 1}, or leave the list empty for the last two.",
                reason="LAYER_OUT_OF_RANGE",
                field=f"{at}.layers[{index}]",
            )
    chosen = sorted(set(requested)) or list(range(max(0, n_layers - 2), n_layers))
    for layer in chosen:
        if layer not in known:
            raise UserError(
                f"The feature file names no feature of layer {layer}.",
                remedy=f"It has features of layers {', '.join(map(str, known))}; name those, or find features of layer "
                f"{layer} with `qscope features language`.",
                reason="FEATURES_NOT_FOUND",
                field=f"{at}.layers",
            )
    return chosen


def held_features(
    found: FeatureSet,
    saes: Mapping[int, TopKSae],
    *,
    targets: Sequence[str],
    top_k: int,
    threshold: Threshold = Threshold.MEAN,
    exclude_target: bool = True,
    at: str = AT,
) -> tuple[list[HeldFeatures], list[str]]:
    """What is held down at each layer, and the G languages that rows may be in.

    Args:
        found: of `qscope features language`.
        saes: by layer of the loss; only the rows of the chosen features are kept of them.
        targets: languages to hold down.
        top_k: features of each, the highest of a layer's ranking.
        threshold: where they begin to count.
        exclude_target: whether rows in a language are free of its own features.
        at: field of the loss, or of whoever else asks, for errors.

    Raises:
        UserError: the file has no thresholds (FEATURES_WITHOUT_ALPHA), no such language (LANGUAGE_UNKNOWN), too few
            features of it (FEATURES_NOT_FOUND), or features of other SAEs (FEATURES_OF_ANOTHER_SAE).
    """
    languages = _languages(found, at)
    for index, target in enumerate(targets):
        if target not in languages:
            raise _unknown(target, languages, f"{at}.target_languages[{index}]")
    held = []
    for layer in sorted(saes):
        field = f"{at}.features"
        refuse_other_sae(found, layer, sae_record(saes[layer]).fingerprint, path="The feature file", field=field)
        chosen = [(target, entry) for target in targets for entry in _best(found, layer, target, top_k, at)]
        alpha_GM = torch.tensor([[entry.class_alphas[name] for _, entry in chosen] for name in languages])
        target_M = torch.tensor([languages.index(target) for target, _ in chosen])
        holds_GM = torch.ones(len(languages), len(chosen), dtype=torch.bool)
        if exclude_target:
            holds_GM[target_M, torch.arange(len(chosen))] = False
        rows = FeatureRows.of(saes[layer], [entry.feature for _, entry in chosen], field=field)
        if threshold is Threshold.ZERO:
            alpha_GM = torch.zeros_like(alpha_GM)
        held.append(HeldFeatures(rows, target_M, alpha_GM, holds_GM).to(rows.W_enc_MD.device))
    return held, languages


def _languages(found: FeatureSet, at: str) -> list[str]:
    """Languages of which every feature has a threshold, sorted."""
    names = [set(entry.class_alphas) for entry in found.entries]
    if not names or not all(names):
        raise UserError(
            "The feature file holds no mean pre-activations, which the SAE loss takes for thresholds.",
            remedy="Name a run of `qscope features language`.",
            reason="FEATURES_WITHOUT_ALPHA",
            field=f"{at}.features",
        )
    return sorted(set.intersection(*names))


def _best(found: FeatureSet, layer: int, target: str, top_k: int, at: str) -> list[FeatureEntry]:
    entries = [entry for entry in found.entries if entry.layer == layer and group_of(entry) == target]
    if len(entries) < top_k:
        raise UserError(
            f"The feature file has {len(entries)} features of {target} at layer {layer}, and {top_k} are wanted.",
            remedy=f"Set top_k to {len(entries)}, or find more." if entries else "Find features of that layer.",
            reason="FEATURES_NOT_FOUND",
            field=f"{at}.top_k",
        )
    return sorted(entries, key=lambda entry: (-entry.score, entry.feature))[:top_k]


def language_ids(codes: Sequence[str | None], languages: Sequence[str], *, field: str = "sft.data.language") -> list:
    """Indices of the languages of rows; ``UNTAGGED`` for None, which is said on purpose: an unknown code is refused.

    Raises:
        UserError: a language that has no threshold (LANGUAGE_UNKNOWN).
    """
    index = {name: place for place, name in enumerate(languages)}
    unknown = next((code for code in codes if code is not None and code not in index), None)
    if unknown is not None:
        raise _unknown(unknown, languages, field)
    return [UNTAGGED if code is None else index[code] for code in codes]


def _unknown(code: str, languages: Sequence[str], field: str) -> UserError:
    near = difflib.get_close_matches(code, languages, 1, cutoff=0.5)
    return UserError(
        f"There is no threshold for language {code!r}: the feature file knows {', '.join(languages)}.",
        remedy=f"Write {near[0]}." if near else "Name one of those, or find features with texts of that language too.",
        reason="LANGUAGE_UNKNOWN",
        field=field,
    )


def refuse_other_model(found: FeatureSet, facts: ModelFacts) -> None:
    """Refuses thresholds that were measured on another model than the one whose training begins.

    Digests are of the weights in the number format they were loaded in, so two formats cannot be compared; commits can.

    Raises:
        UserError: another model (FEATURES_OF_ANOTHER_MODEL).
    """
    record = found.model_record
    pairs = [(record.d_model, facts.d_model), (record.n_layers, facts.n_layers), (record.commit, facts.commit)]
    if record.dtype == facts.dtype:
        pairs.append((record.fingerprint, facts.fingerprint))
    if any(known and here and known != here for known, here in pairs):
        raise UserError(
            f"The features and their thresholds were measured on {found.model}, and {facts.name} is another model.",
            remedy=f"Train {found.model}, or run `qscope features language` on {facts.name}.",
            reason="FEATURES_OF_ANOTHER_MODEL",
            field=f"{AT}.features",
        )
