"""``qscope features language``: the features of each language (nu), and their mean pre-activations (alpha)."""

from __future__ import annotations

from qscope.errors import UserError
from qscope.features.contrast import Question, find_features, mean_pre_activations
from qscope.features.documents import Document, DocumentReader, split
from qscope.features.files import group_of
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import open_documents, open_model, report_layers, watch, write_features
from qscope.runs import RunContext
from qscope.v1.features_pb2 import (
    CONTRAST_SCORE_MEAN_DIFFERENCE,
    CONTRAST_UNIT_TOKEN,
    FeatureEntry,
    LanguageFeatures,
)

AT = "language_features"
#: Two documents to rank by and two to check with.
FEWEST = 4
#: Documents looked through at most for each one wanted: a language that is misspelt is nowhere.
_ROWS = 20


def run(context: RunContext) -> None:
    """Ranks by nu on one half of each language's documents, checks on the other, then measures alpha on both."""
    admit(context)
    task: LanguageFeatures = context.experiment.language_features
    opened = open_model(context, task, at=AT)
    reader = open_documents(
        context,
        task,
        task.text,
        opened.loaded,
        at=AT,
        name="text",
        label=task.language_field,
        label_field=f"{AT}.language_field",
    )
    by_language = _collect(context, task, reader)
    languages = list(by_language)
    halves = [split(by_language[name], task.held_out_share, context.seed_for("held-out")) for name in languages]
    ranking = [document.in_group(group) for group, half in enumerate(halves) for document in half.ranking]
    held_out = [document.in_group(group) for group, half in enumerate(halves) for document in half.held_out]
    on_progress, should_stop = watch(context, "reading", len(ranking) + len(held_out))
    found = find_features(
        opened.loaded,
        opened.saes,
        ranking,
        held_out,
        Question(
            languages,
            range(len(languages)),
            CONTRAST_SCORE_MEAN_DIFFERENCE,
            CONTRAST_UNIT_TOKEN,
            task.top,
            task.ambient_share,
        ),
        batch_tokens=task.model_batch_tokens,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if found is None:
        context.stop(0)
    chosen: dict[int, list[int]] = {}
    for entry in found.entries:
        chosen.setdefault(entry.layer, []).append(entry.feature)
    on_progress, should_stop = watch(context, "measuring alpha", len(ranking) + len(held_out))
    alphas = mean_pre_activations(
        opened.loaded,
        opened.saes,
        [*ranking, *held_out],
        chosen,
        len(languages),
        batch_tokens=task.model_batch_tokens,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    if alphas is None:
        context.stop(0)
    for entry in found.entries:
        alpha_G = alphas[entry.layer][:, chosen[entry.layer].index(entry.feature)].tolist()
        for name, alpha in zip(languages, alpha_G, strict=True):
            entry.class_alphas[name] = alpha
    _report(context, languages, found.entries)
    report_layers(context, found, found.entries)
    report = {
        "source": reader.identity(),
        "language_field": task.language_field,
        "languages": {
            name: {
                "documents_ranking": found.documents[0][group],
                "documents_held_out": found.documents[1][group],
                "duplicates_left_out": halves[group].duplicates,
                "tokens": found.tokens[group],
            }
            for group, name in enumerate(languages)
        },
        "empty_left_out": reader.empty,
        "cut_at_context": reader.cut,
        "not_finite_tokens": found.not_finite,
        "ambient": {str(layer): features for layer, features in found.ambient.items()},
        "median_residual_norm": {str(layer): norm for layer, norm in found.median_norms.items()},
    }
    score = "mean activation minus the mean of the other languages' means (nu) per token"
    write_features(context, task, opened, found.entries, kind="language", score=score, report=report)


def _collect(context: RunContext, task: LanguageFeatures, reader: DocumentReader) -> dict[str, list[Document]]:
    """Documents by language, in the order the languages are named or else sorted; of so many rows at most."""
    held: dict[str, list[Document]] = {name: [] for name in task.languages}
    seen: set[str] = set()
    rows, limit = 0, _ROWS * task.documents * max(1, len(task.languages))
    on_progress, should_stop = watch(context, "looking for documents", limit)
    while rows < limit:
        documents = reader.take(64, should_stop)
        if should_stop():
            context.stop(0)
        if not documents:
            break
        rows += len(documents)
        on_progress(rows)
        for document in documents:
            seen.add(document.label)
            wanted = held.setdefault(document.label, []) if not task.languages else held.get(document.label)
            if wanted is not None and len(wanted) < task.documents:
                wanted.append(document)
        if task.languages and all(len(one) >= task.documents for one in held.values()):
            break
    if task.languages:
        for index, name in enumerate(task.languages):
            if len(held[name]) < FEWEST:
                where = f" among the first {rows:,}" if rows >= limit else ""
                raise UserError(
                    f"There are {len(held[name])} documents of language {name!r}{where}, too few to rank and to check.",
                    remedy=f"There the column holds {', '.join(sorted(seen)[:30]) or 'nothing'}."
                    + (" For a text ordered by language, set text.shuffle_documents." if where else ""),
                    reason="TOO_FEW_DOCUMENTS",
                    field=f"{AT}.languages[{index}]",
                )
    else:
        held = {name: held[name] for name in sorted(held) if name and len(held[name]) >= FEWEST}
    if len(held) < 2:
        raise UserError(
            f"A comparison needs two languages with {FEWEST} documents each; there {'is' if len(held) == 1 else 'are'}"
            f" {len(held)}.",
            remedy="Check language_field, or give more text.",
            reason="TOO_FEW_DOCUMENTS",
            field=f"{AT}.text.source",
        )
    return held


def _report(context: RunContext, languages: list[str], entries: list[FeatureEntry]) -> None:
    """For every language the layer and feature that separate it best, held out."""
    for name in languages:
        own = [entry for entry in entries if group_of(entry) == name]
        if not own:
            context.warning(f"No feature favours {name} at any layer.")
            continue
        best = max(own, key=lambda entry: (entry.held_out_auc, entry.held_out_score))
        context.info(
            f"{name}: best held-out AUC {best.held_out_auc:.3f} ({best.auc_low:.3f} to {best.auc_high:.3f}) by"
            f" {best.layer}/{best.feature}, nu {best.held_out_score:.3g}"
        )
