"""``qscope features diagnose``: the features behind bad responses, by activation and by influence on the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from qscope import __version__
from qscope.errors import UserError
from qscope.features.diagnose import (
    LayerSums,
    add_case,
    examples,
    finite_tokens,
    new_sums,
    ranks,
    residuals_and_gradients,
)
from qscope.features.encoders import model_record, sae_layers, sae_record
from qscope.models import LoadedModel, check_hooks, choose_device, load_model, select_layers
from qscope.models.generation import refuse_beyond_context
from qscope.models.prompts import Prompt, render_prompt
from qscope.recipes.admission import admit
from qscope.recipes.plan_features import HELD_BYTES
from qscope.recipes.shared import pinned, place_of_saes, warn_of_misfit
from qscope.runs import RunContext
from qscope.runs.files import write_message
from qscope.sae import formats
from qscope.steering.calibration import measure_activity
from qscope.v1.diagnose_pb2 import DiagnosedFeature, DiagnoseFeatures, Diagnosis
from qscope.v1.features_pb2 import SaeRecord

AT = "diagnose_features"


@dataclass
class _Held:
    """Residual stream and gradient of the tokens read so far, by layer, on the CPU.

    They wait there, up to ``HELD_BYTES``, so that one SAE at a time can go through them: all SAEs together on the
    device would be the largest thing of all.
    """

    resid: dict[int, list[Tensor]] = field(default_factory=dict)
    gradients: dict[int, list[Tensor]] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)
    bytes: int = 0


@dataclass
class _Layer:
    """What is kept of a layer once its SAE has gone."""

    sums: LayerSums
    baseline_F: Tensor
    record: SaeRecord


def run(context: RunContext) -> None:
    """Reads every case once with gradients, ranks the features of every layer twice, and writes ``diagnosis.json``."""
    admit(context)
    task: DiagnoseFeatures = context.experiment.diagnose_features
    experiment = context.experiment
    loaded = load_model(experiment.model, experiment.model_options, choose_device(experiment.compute.device))
    check_hooks(loaded)
    select_layers(task.layers, loaded.facts.n_layers, at=f"{AT}.layers")
    place = pinned(context, f"{AT}.sae", lambda: place_of_saes(task.sae, context.folder.parent, at=f"{AT}.sae"))
    layers = sorted(task.layers) or sae_layers(place)
    warn_of_misfit(context, place, layers, loaded, at=f"{AT}.sae")
    cases = [_case(loaded, task, index) for index in range(len(task.cases))]
    held, found, logprob, tokens, not_finite = _Held(), {}, 0.0, 0, 0
    for index, (prompt, ids_T) in enumerate(cases):
        if context.stop_requested:
            context.stop(0)
        resid, gradients, case_logprob = residuals_and_gradients(loaded, layers, ids_T, len(prompt))
        if not math.isfinite(case_logprob):
            raise _not_finite(f"The log-probability of case {index}'s response is not finite", index)
        finite_N = finite_tokens(resid, gradients)
        not_finite += int((~finite_N).sum())
        _hold(held, loaded, resid, gradients, ids_T[len(prompt) - 1 : -1], finite_N)
        logprob += case_logprob
        tokens += len(ids_T) - len(prompt)
        context.progress("diagnosing", index + 1, len(cases), "responses")
        del resid, gradients
        if held.bytes >= HELD_BYTES or (index == len(cases) - 1 and held.ids):
            _encode(context, task, loaded, place, layers, held, found)
            held = _Held()
    if not found:
        raise _not_finite("No token of any response is finite in the residual stream and its gradient", 0)
    if not_finite:
        context.warning(
            f"{not_finite:,} of {tokens:,} tokens count for no feature: the residual stream or its gradient was not"
            " finite there. Another model_options.precision may help."
        )
    diagnosis = Diagnosis(
        model=loaded.facts.name,
        sae=str(place),
        tokens=tokens,
        logprob=logprob / tokens,
        qscope_version=__version__,
        model_record=model_record(loaded.facts),
        sae_records=[found[layer].record for layer in layers],
        format=task.format,
        tokens_not_finite=not_finite,
    )
    for layer in layers:
        diagnosis.features.extend(_ranked(loaded, task, layer, found[layer]))
    _write(context, diagnosis)


def _not_finite(what: str, index: int) -> UserError:
    return UserError(
        f"{what}.",
        remedy="Set model_options.precision to bfloat16 or float32: float16 overflows above 65,504.",
        reason="NOT_FINITE",
        field=f"{AT}.cases[{index}]",
    )


def _hold(
    held: _Held,
    loaded: LoadedModel,
    resid: dict[int, Tensor],
    gradients: dict[int, Tensor],
    ids_N: Tensor,
    finite_N: Tensor,
) -> None:
    # The model's own number format holds what came out of it without loss.
    dtype = next(loaded.model.parameters()).dtype
    for kept, given in ((held.resid, resid), (held.gradients, gradients)):
        for layer, part_ND in given.items():
            part_ND = part_ND[finite_N].to("cpu", dtype)
            kept.setdefault(layer, []).append(part_ND)
            held.bytes += part_ND.nbytes
    held.ids += ids_N[finite_N.cpu()].tolist()


def _encode(
    context: RunContext,
    task: DiagnoseFeatures,
    loaded: LoadedModel,
    place: Path | str,
    layers: Sequence[int],
    held: _Held,
    found: dict[int, _Layer],
) -> None:
    """Adds what is held to the sums of every layer, with one SAE in memory at a time."""
    for done, layer in enumerate(layers):
        if context.stop_requested:
            context.stop(0)
        saes = formats.load(place, [layer], offline=context.experiment.model_options.offline)
        formats.refuse_if_foreign(saes, loaded.facts, field=f"{AT}.sae")
        sae = saes.pop(layer).to(loaded.device)
        if layer not in found:
            baseline_F = torch.zeros(sae.d_sae, dtype=torch.float64)
            if task.baseline_tokens:
                first = done * task.baseline_tokens
                activity = measure_activity(
                    loaded,
                    sae,
                    tokens=task.baseline_tokens,
                    on_progress=lambda read, first=first: context.progress(
                        "ordinary text", first + read, len(layers) * task.baseline_tokens, "tokens"
                    ),
                    should_stop=lambda: context.stop_requested,
                )
                if activity is None:
                    context.stop(0)
                baseline_F = activity.mean_F.double()
            found[layer] = _Layer(new_sums({layer: sae})[layer], baseline_F, sae_record(sae))
        for resid_ND, gradient_ND, start in _parts(held.resid.pop(layer), held.gradients.pop(layer)):
            ids_N = held.ids[start : start + len(resid_ND)]
            on_device = (part_ND.to(loaded.device).float() for part_ND in (resid_ND, gradient_ND))
            add_case(found[layer].sums, sae, *on_device, ids_N)
        del sae


def _parts(resid: list[Tensor], gradients: list[Tensor]):
    """Residuals and gradients of one case after the other, with the place of its first token among all."""
    start = 0
    for resid_ND, gradient_ND in zip(resid, gradients, strict=True):
        yield resid_ND, gradient_ND, start
        start += len(resid_ND)


def _case(loaded: LoadedModel, task: DiagnoseFeatures, index: int) -> tuple[Prompt, Tensor]:
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


def _ranked(loaded: LoadedModel, task: DiagnoseFeatures, layer: int, found: _Layer) -> list[DiagnosedFeature]:
    """Features of a layer among the first of either ranking, by influence."""
    sums, baseline_F = found.sums, found.baseline_F
    activation_F, influence_F = sums.activation_F / sums.tokens, sums.influence_F / sums.tokens
    by_activation_F, by_influence_F = ranks(activation_F - baseline_F), ranks(influence_F)
    kept = ((by_activation_F <= task.top) | (by_influence_F <= task.top)) & (sums.fired_F > 0)
    chosen = sorted(kept.nonzero()[:, 0].tolist(), key=lambda feature: int(by_influence_F[feature]))
    return [
        DiagnosedFeature(
            layer=layer,
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
    write_message(path, found)
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
