"""``qscope eval codeswitch`` with ``onset``: the features of the languages around the first switched token."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qscope.features.encoders import load_encoders
from qscope.features.files import group_of, load_features
from qscope.features.onset import OnsetCurve
from qscope.models import LoadedModel
from qscope.posttraining.answered import Answered
from qscope.posttraining.code_switching import language_code
from qscope.posttraining.evaluating import Measured
from qscope.posttraining.examples import Prompts
from qscope.posttraining.held_features import held_features, loss_layers
from qscope.posttraining.sae_loss import HeldFeatures
from qscope.posttraining.switch_onset import Aligned, Side, aligned, as_dict, first_token, onset_of_switches
from qscope.recipes.eval_parts import AT as EVAL
from qscope.recipes.feature_parts import language_run
from qscope.recipes.repetition_report import mean_of, separation
from qscope.recipes.shared import pinned, place_of_saes, warn_of_misfit
from qscope.runs import RunContext
from qscope.runs.files import plain
from qscope.v1 import report_pb2 as pb
from qscope.v1.eval_pb2 import EvalResponses

AT = f"{EVAL}.onset"
#: Tokens of a forward pass, padding included.
BATCH_TOKENS = 8192

_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)
_INTEGER = pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)

Curves = dict[tuple[int, Side, bool], OnsetCurve]


@dataclass(frozen=True)
class Probe:
    """What looks at responses once they are written.

    Attributes:
        loaded: the model.
        held: features of all languages, one for each layer.
        languages: their names, which the indices in ``held`` stand for.
        asked: tokens of each prompt, by row.
    """

    loaded: LoadedModel
    held: list[HeldFeatures]
    languages: list[str]
    asked: dict[int, tuple[int, ...]]


def open_probe(context: RunContext, task: EvalResponses, loaded: LoadedModel, prompts: Prompts) -> Probe:
    """Reads features and SAEs, before anything is written: what is wrong with them is said at once.

    Raises:
        UserError: what :func:`~qscope.posttraining.held_features.held_features` and the readers of files refuse.
    """
    options, offline, runs = task.onset, context.experiment.model_options.offline, context.folder.parent
    at = f"{AT}.features"
    named = Path(pinned(context, at, partial(language_run, options.features, runs, at=at)))
    found = load_features(named, field=at)
    layers = loss_layers(options.layers, loaded.facts.n_layers, {entry.layer for entry in found.entries}, at=AT)
    place = pinned(context, f"{AT}.sae", partial(place_of_saes, options.sae, runs, at=f"{AT}.sae"))
    warn_of_misfit(context, place, layers, loaded, at=f"{AT}.sae")
    saes = load_encoders(place, layers, loaded.facts, device=loaded.device, offline=offline, field=f"{AT}.sae")
    # The targets have to have features; what other languages have stands beside them.
    having = Counter((group_of(entry), entry.layer) for entry in found.entries)
    known = {name for name, _ in having if all(having[name, layer] >= options.top_k for layer in layers)}
    asked = [language_code(name, at=f"{EVAL}.codeswitch.targets") for name in task.codeswitch.targets]
    names = [*dict.fromkeys([*asked, *sorted(known)])]
    held, languages = held_features(found, saes, targets=names, top_k=options.top_k, exclude_target=False, at=AT)
    return Probe(loaded, held, languages, {one.row: one.ids for one in prompts.items})


def around_switches(
    context: RunContext, task: EvalResponses, probe: Probe, answered: Sequence[Answered], measured: Measured
) -> Onset | None:
    """Curves around the first switched token; None where no response switches.

    Args:
        context: the run.
        task: the experiment.
        probe: of the model that wrote the responses.
        answered: the responses, in the order that ``measured`` numbers them.
        measured: where they switch.
    """
    chosen = _aligned(probe, answered, measured)
    switches = sum(one.switched for one in chosen)
    if not switches:
        context.warning("No response switches to a language that has features, so there is no onset to look at.")
        return None
    curves = onset_of_switches(
        probe.loaded,
        probe.held,
        chosen,
        before=task.onset.before,
        after=task.onset.after,
        batch_tokens=BATCH_TOKENS,
        on_progress=lambda done: context.progress("reading switches", done, len(chosen), "responses"),
        should_stop=lambda: context.stop_requested,
    )
    if curves is None:
        context.stop(len(answered))
    onset = Onset(", ".join(task.codeswitch.targets), curves)
    context.info("\n".join(onset.lines()))
    return onset


def _aligned(probe: Probe, answered: Sequence[Answered], measured: Measured) -> list[Aligned]:
    """Every response that switches at its first switched token; those that stay, each as deep as one that does not."""
    index = {name: number for number, name in enumerate(probe.languages)}
    tokenizer = probe.loaded.tokenizer
    chosen = []
    for row in measured.switches or ():
        if row.expected not in index or row.target not in index:
            continue
        first: dict[int, int] = {}
        for number, span in row.spans:
            first[number] = min(span.start, first.get(number, span.start))
        places = {number: first_token(tokenizer, answered[number].response.ids, at) for number, at in first.items()}
        stays = [
            number
            for number, one in enumerate(answered)
            if number not in first and one.response.language and language_code(one.response.language) == row.expected
        ]
        # As many places as there are switches, over and over: depth is the same on both sides.
        depths = list(places.values())
        beside = {number: depths[turn % len(depths)] for turn, number in enumerate(stays)} if depths else {}
        for switched, where in ((True, places), (False, beside)):
            for number, place in where.items():
                one = answered[number]
                if place < len(one.response.ids):
                    chosen.append(
                        aligned(
                            probe.asked[one.row],
                            one.response.ids,
                            place,
                            language=index[row.expected],
                            target=index[row.target],
                            switched=switched,
                        )
                    )
    return chosen


@dataclass(frozen=True)
class Onset:
    """Curves around the first switched token.

    Attributes:
        targets: languages that are switched to, in words.
        curves: by layer, side, and whether the responses switch.
    """

    targets: str
    curves: Curves

    @property
    def layers(self) -> list[int]:
        """Layers, ascending."""
        return sorted({layer for layer, _, _ in self.curves})

    def told_apart(self, layer: int) -> tuple[float, float, float]:
        """AUC of responses that switch against those that stay, by the target's features before the place."""
        switched, stays = (self.curves[layer, Side.TARGET, flag] for flag in (True, False))
        return separation(switched.before_D, stays.before_D)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        names = ("layer", "auc", "low", "high")
        before = [dict(zip(names, (one, *self.told_apart(one)), strict=True)) for one in self.layers]
        return plain({"targets": self.targets, "before": before, "curves": as_dict(self.curves)})

    def lines(self) -> list[str]:
        """The table for a terminal of 80 columns."""
        lines = [
            f"features of {self.targets} around the first switched token, over their mean on the",
            "response's language, and in responses that stay, as deep",
            f"{'layer':>5}{'far before':>12}{'just before':>13}{'at it':>9}{'stays':>9}   {'AUC before':<22}{'n':>6}",
        ]
        for layer in self.layers:
            switched, stays = (self.curves[layer, Side.TARGET, flag] for flag in (True, False))
            zero = switched.offset_W.index(0)
            auc, low, high = self.told_apart(layer)
            found = f"{auc:.3f} ({low:.3f}-{high:.3f})" if not math.isnan(auc) else ""
            lines.append(
                f"{layer:>5}{switched.mean_W[0]:>12.3g}{switched.mean_W[zero - 1]:>13.3g}{switched.mean_W[zero]:>9.3g}"
                f"{mean_of(stays.before_D):>9.3g}   {found:<22}{switched.count_W[zero]:>6,}".rstrip()
            )
        return lines

    def section(self) -> pb.ReportSection:
        """The part of a page."""
        return pb.ReportSection(
            heading="Around the first switched token",
            text=f"Pre-activation of the features of a language, less its mean on text in the language the response "
            f"should be in: 0 is what is usual there. Token 0 is the first one in {self.targets}. Responses that stay "
            "are read as deep. The last layers are where the SAE loss acts.",
            sections=[self._plot(layer) for layer in self.layers],
        )

    def _plot(self, layer: int) -> pb.ReportSection:
        names = {
            (Side.TARGET, True): f"{self.targets}, responses that switch",
            (Side.TARGET, False): f"{self.targets}, responses that stay",
            (Side.OWN, True): "the response's own language, switching",
            (Side.OTHERS, True): "other languages, switching",
        }
        return pb.ReportSection(
            heading=f"Layer {layer}",
            line_plot=pb.LinePlot(
                x=pb.PlotAxis(label="tokens from the switch", format=_INTEGER),
                y=pb.PlotAxis(label="pre-activation less its mean", include=[0]),
                series=[_series(name, self.curves[layer, *which]) for which, name in names.items()],
                markers=[pb.PlotMarker(x=0, label="switch")],
                band="standard error over responses",
            ),
        )


def _series(name: str, curve: OnsetCurve) -> pb.PlotSeries:
    known = [slot for slot, mean in enumerate(curve.mean_W) if not math.isnan(mean)]
    # One response has no spread: its band has no width.
    errors = [0.0 if math.isnan(curve.error_W[slot]) else curve.error_W[slot] for slot in known]
    means = [curve.mean_W[slot] for slot in known]
    return pb.PlotSeries(
        name=name,
        x=[curve.offset_W[slot] for slot in known],
        y=means,
        low=[mean - error for mean, error in zip(means, errors, strict=True)],
        high=[mean + error for mean, error in zip(means, errors, strict=True)],
    )
