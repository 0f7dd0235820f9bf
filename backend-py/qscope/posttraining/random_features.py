"""Features that fire as often as given ones and stand for nothing: the control of an SAE loss.

Rates and thresholds are measured on the answers of the training rows, with the model before training. A feature file
comes out of it, with the languages of the file it stands beside, so that everything behind it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscope.features.files import group_of
from qscope.models import LoadedModel, capture_residuals
from qscope.posttraining.examples import Example
from qscope.runs.context import seed_of
from qscope.sae.topk import TopKSae
from qscope.v1.features_pb2 import FeatureEntry, FeatureSet

#: A feature is drawn among so many that fire about as often.
NEIGHBOURS = 16
#: Answer tokens that rates are measured on at most.
TOKENS = 1 << 16
_ROWS = 16


@dataclass(frozen=True)
class Answers:
    """Answers of some rows, read by a model.

    Attributes:
        loaded: the model before training.
        rows: those that are read.
    """

    loaded: LoadedModel
    rows: Sequence[Example]

    @classmethod
    def sample(cls, loaded: LoadedModel, rows: Sequence[Example], *, seed: int, tokens: int = TOKENS) -> Answers:
        """Rows in an order of the seed, as many as make up the tokens."""
        chosen, count = [], 0
        for index in np.random.default_rng(seed).permutation(len(rows)).tolist():
            if count >= tokens:
                break
            chosen.append(rows[index])
            count += sum(rows[index].answer)
        # By length: little padding.
        return cls(loaded, sorted(chosen, key=lambda row: (len(row.ids), row.row)))

    def read(
        self, layers: Sequence[int], on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Iterator[tuple[list[str | None], dict[int, Tensor]]]:
        """Languages and residual streams of answer tokens: ``[N]`` and ``x_ND`` by layer, batch by batch."""
        for at in range(0, len(self.rows), _ROWS):
            part = self.rows[at : at + _ROWS]
            width = max(len(row.ids) for row in part)
            ids_BT = torch.tensor([list(row.ids) + [0] * (width - len(row.ids)) for row in part])
            mask_BT = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in part])
            answer_BT = torch.tensor([list(row.answer) + [False] * (width - len(row.ids)) for row in part])
            resids = capture_residuals(self.loaded, layers, ids_BT, mask_BT)
            names = [row.language for row in part for flag in row.answer if flag]
            yield names, {layer: resids[layer][answer_BT.to(resids[layer].device)].float() for layer in layers}
            on_progress(min(at + _ROWS, len(self.rows)), len(self.rows))


def firing_rates(answers: Answers, saes: Mapping[int, TopKSae], **options: Callable) -> dict[int, Tensor]:
    """Share of answer tokens at which each feature fires, ``rate_F`` by layer, float64 on the CPU."""
    hits = {layer: torch.zeros(sae.d_sae, dtype=torch.int64) for layer, sae in saes.items()}
    count = 0
    for names, resids in answers.read(sorted(saes), **options):
        count += len(names)
        for layer, x_ND in resids.items():
            values_NK, indices_NK = saes[layer].encode(x_ND)
            hits[layer] += torch.bincount(indices_NK[values_NK > 0], minlength=saes[layer].d_sae).cpu()
    return {layer: hits_F.double() / max(count, 1) for layer, hits_F in hits.items()}


def draw_alike(rate_F: Tensor, features: Sequence[int], excluded: Sequence[int], *, seed: int) -> list[int]:
    """For each feature another one, each once, among those whose rates are nearest on a scale of ratios.

    Args:
        rate_F: firing rates of all features.
        features: those to be stood in for.
        excluded: never drawn; the features themselves are not either.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    # A rate that was measured as zero is not infinitely far from a small one.
    log_F = torch.log(rate_F + 1e-6)
    taken = {*features, *excluded}
    drawn = []
    for feature in features:
        order = torch.argsort((log_F - log_F[feature]).abs(), stable=True).tolist()
        near = [other for other in order if other not in taken][:NEIGHBOURS]
        assert near, "the SAE has no other features"
        other = int(generator.choice(near))
        taken.add(other)
        drawn.append(other)
    return drawn


def random_features(
    found: FeatureSet,
    answers: Answers,
    saes: Mapping[int, TopKSae],
    targets: Sequence[str],
    top_k: int,
    languages: Sequence[str],
    *,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureSet:
    """A feature file of stand-ins.

    Args:
        found: the file whose features they stand in for.
        answers: what rates and thresholds are measured on.
        saes: encoders by layer.
        targets: languages whose features are replaced.
        top_k: features of each language and layer.
        languages: that get a threshold. One without rows gets the mean over all of them, which no row will ask for.
        seed: of the draws.
        on_progress: told rows read, and of how many: of two passes, one behind the other.
    """
    count = len(answers.rows)
    rates = firing_rates(answers, saes, on_progress=lambda done, total: on_progress(done, 2 * count))
    entries: list[FeatureEntry] = []
    for layer in sorted(saes):
        known = [entry for entry in found.entries if entry.layer == layer]
        for target in targets:
            own = sorted((e for e in known if group_of(e) == target), key=lambda entry: (-entry.score, entry.feature))
            wanted = [entry.feature for entry in own[:top_k]]
            excluded = [entry.feature for entry in known] + [e.feature for e in entries if e.layer == layer]
            drawn = draw_alike(rates[layer], wanted, excluded, seed=seed_of(seed, f"{layer}/{target}"))
            for place, (original, feature) in enumerate(zip(wanted, drawn, strict=True)):
                rate = float(rates[layer][feature])
                label = (
                    f"random, for {layer}/{original} (fires at {float(rates[layer][original]):.3%} of answer tokens)"
                )
                # The order of the originals is kept by the score.
                entries.append(
                    FeatureEntry(
                        layer=layer, feature=feature, group=target, label=label, score=-float(place), rate_positive=rate
                    )
                )
    _measure_alphas(answers, saes, entries, languages, lambda done, total: on_progress(count + done, 2 * count))
    made = FeatureSet()
    made.CopyFrom(found)
    del made.entries[:]
    made.entries.extend(entries)
    made.kind, made.score = "random", "drawn at random among features that fire as often"
    return made


def _measure_alphas(
    answers: Answers,
    saes: Mapping[int, TopKSae],
    entries: Sequence[FeatureEntry],
    languages: Sequence[str],
    on_progress: Callable[[int, int], None],
) -> None:
    """Mean pre-activations by language, into the entries."""
    index = {name: place for place, name in enumerate(languages)}
    by_layer = {layer: [entry for entry in entries if entry.layer == layer] for layer in saes}
    # The last row is of all languages together.
    sums = {layer: torch.zeros(len(index) + 1, len(chosen), dtype=torch.float64) for layer, chosen in by_layer.items()}
    tokens_G = torch.zeros(len(index) + 1, dtype=torch.float64)
    for names, resids in answers.read(sorted(saes), on_progress=on_progress):
        language_N = torch.tensor([index.get(name, -1) if name else -1 for name in names])
        known_N = language_N >= 0
        tokens_G[: len(index)] += torch.bincount(language_N[known_N], minlength=len(index))
        tokens_G[-1] += len(names)
        for layer, x_ND in resids.items():
            sae, features = saes[layer], [entry.feature for entry in by_layer[layer]]
            u_NM = torch.nn.functional.linear(x_ND, sae.W_enc_FD[features], sae.b_enc_F[features]).double().cpu()
            sums[layer].index_add_(0, language_N[known_N], u_NM[known_N])
            sums[layer][-1] += u_NM.sum(0)
    for layer, chosen in by_layer.items():
        mean_M = sums[layer][-1] / tokens_G[-1].clamp_min(1)
        for place, entry in enumerate(chosen):
            for name, row in index.items():
                own = float(sums[layer][row, place] / tokens_G[row]) if tokens_G[row] else float(mean_M[place])
                entry.class_alphas[name] = own
