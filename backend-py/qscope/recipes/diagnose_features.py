"""``qscope features diagnose``: the features behind bad responses, by activation and by influence on the output."""

from __future__ import annotations

import torch
from google.protobuf import json_format

from qscope import __version__
from qscope.errors import UserError
from qscope.features.diagnose import LayerSums, add_case, examples, new_sums, ranks, residuals_and_gradients
from qscope.models import LoadedModel, check_hooks, choose_device, load_model, select_layers
from qscope.models.generation import refuse_beyond_context
from qscope.models.prompts import Prompt, render_prompt
from qscope.recipes.admission import admit
from qscope.recipes.shared import place_of_saes, warn_of_misfit
from qscope.runs import RunContext
from qscope.runs.files import replacing
from qscope.sae import formats
from qscope.sae.topk import TopKSae
from qscope.steering.calibration import measure_activity
from qscope.v1.diagnose_pb2 import DiagnosedFeature, DiagnoseFeatures, Diagnosis

AT = "diagnose_features"


def run(context: RunContext) -> None:
    """Reads every case once with gradients, ranks the features of every layer twice, and writes ``diagnosis.json``."""
    admit(context)
    task: DiagnoseFeatures = context.experiment.diagnose_features
    experiment = context.experiment
    loaded = load_model(experiment.model, experiment.model_options, choose_device(experiment.compute.device))
    check_hooks(loaded)
    saes = _saes(context, task, loaded)
    cases = [_case(loaded, task, index) for index in range(len(task.cases))]
    sums, logprob, tokens = new_sums(saes), 0.0, 0
    for done, (prompt, ids_T) in enumerate(cases):
        if context.stop_requested:
            context.stop(0)
        resid, gradients, case_logprob = residuals_and_gradients(loaded, list(saes), ids_T, len(prompt))
        for layer, sae in saes.items():
            add_case(sums[layer], sae, resid[layer], gradients[layer], ids_T[len(prompt) - 1 : -1].tolist())
        logprob += case_logprob
        tokens += len(ids_T) - len(prompt)
        context.progress("diagnosing", done + 1, len(cases), "responses")
    found = Diagnosis(
        model=loaded.facts.name, sae=task.sae, tokens=tokens, logprob=logprob / tokens, qscope_version=__version__
    )
    for layer, sae in saes.items():
        found.features.extend(_ranked(loaded, task, sae, sums[layer]))
    _write(context, found)


def _saes(context: RunContext, task: DiagnoseFeatures, loaded: LoadedModel) -> dict[int, TopKSae]:
    select_layers(task.layers, loaded.facts.n_layers, at=f"{AT}.layers")
    place = place_of_saes(task.sae, context.folder.parent, at=f"{AT}.sae")
    saes = formats.load(place, list(task.layers) or None, offline=context.experiment.model_options.offline)
    warn_of_misfit(context, place, list(saes), loaded, at=f"{AT}.sae")
    return {layer: sae.to(loaded.device) for layer, sae in saes.items()}


def _case(loaded: LoadedModel, task: DiagnoseFeatures, index: int) -> tuple[Prompt, torch.Tensor]:
    given, at = task.cases[index], f"{AT}.cases[{index}]"
    prompt = render_prompt(loaded.tokenizer, given.prompt, task.format, at=f"{at}.prompt")
    response = loaded.tokenizer(given.response, add_special_tokens=False)["input_ids"]
    if not response:
        raise UserError(
            "The response is empty.",
            remedy="Give the text that the model answered.",
            reason="PROMPT_EMPTY",
            field=f"{at}.response",
        )
    refuse_beyond_context(loaded, len(prompt), len(response), at=at)
    return prompt, torch.tensor([*prompt.ids_T.tolist(), *response])


def _ranked(loaded: LoadedModel, task: DiagnoseFeatures, sae: TopKSae, sums: LayerSums) -> list[DiagnosedFeature]:
    """Features of a layer among the first of either ranking, by influence."""
    activation_F, influence_F = sums.activation_F / sums.tokens, sums.influence_F / sums.tokens
    baseline_F = torch.zeros_like(activation_F)
    if task.baseline_tokens:
        baseline_F = measure_activity(loaded, sae, tokens=task.baseline_tokens).mean_F.double()
    by_activation_F, by_influence_F = ranks(activation_F - baseline_F), ranks(influence_F)
    kept = ((by_activation_F <= task.top) | (by_influence_F <= task.top)) & (sums.fired_F > 0)
    chosen = sorted(kept.nonzero()[:, 0].tolist(), key=lambda feature: int(by_influence_F[feature]))
    return [
        DiagnosedFeature(
            layer=sae.layer,
            feature=feature,
            activation=activation_F[feature].item(),
            baseline=baseline_F[feature].item(),
            influence=influence_F[feature].item(),
            rate=(sums.fired_F[feature] / sums.tokens).item(),
            activation_rank=int(by_activation_F[feature]),
            influence_rank=int(by_influence_F[feature]),
            tokens=[loaded.tokenizer.decode([token]) for token in examples(sums, feature)],
        )
        for feature in chosen
    ]


def _write(context: RunContext, found: Diagnosis) -> None:
    path = context.artifacts / "diagnosis.json"
    text = json_format.MessageToJson(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    context.artifact(path, kind="diagnosis", description=f"{len(found.features)} features, {found.tokens:,} tokens")
    lines = [f"{'layer':>5}{'feature':>9}{'influence':>11}{'rank':>6}{'activation':>12}{'rank':>6}{'fires':>7}  at"]
    for layer in sorted({entry.layer for entry in found.features}):
        for entry in [one for one in found.features if one.layer == layer][:3]:
            tokens = " ".join(repr(token)[1:-1] for token in entry.tokens[:3])
            lines.append(
                f"{entry.layer:>5}{entry.feature:>9}{entry.influence:>11.4f}{entry.influence_rank:>6}"
                f"{entry.activation:>12.3f}{entry.activation_rank:>6}{entry.rate:>7.0%}  {tokens}"[:80].rstrip()
            )
    context.info("\n".join(lines))
