"""What a rule of features has to be compared with: logistic probes, a difference of means, and words alone.

Each is fitted on the discovery texts. Its layer, then its strength of regularisation, are those with the best AUC on
the calibration texts; the evaluation texts decide nothing. Classes weigh equally, so that an odd mix of them does not
move the decision.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from qscope.features.auc import auc

#: Strengths of regularisation tried (inverse; scikit-learn's C), the first of them while the layer is chosen.
STRENGTHS = (1.0, 0.01, 0.1, 10.0)
#: Longest word and character n-grams, and how many distinct ones are kept.
_WORDS, _CHARACTERS, _MOST_NGRAMS = (1, 2), (2, 5), 200_000
#: Steps of a fit at most.
ITERATIONS = 1000


@dataclass(frozen=True)
class Sides:
    """Rows by what they are for.

    Attributes:
        discovery_R, calibration_R, evaluation_R: rows of all texts.
        positive_N: which of all texts have the attribute.
    """

    discovery_R: np.ndarray
    calibration_R: np.ndarray
    evaluation_R: np.ndarray
    positive_N: np.ndarray

    def calibration_auc(self, scores_N: np.ndarray) -> float:
        """AUC of scores on the calibration texts."""
        scores = torch.from_numpy(np.asarray(scores_N[self.calibration_R], dtype=np.float64))[:, None]
        return float(auc(scores, torch.from_numpy(self.positive_N[self.calibration_R]))[0])


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline on all texts.

    Attributes:
        scores_N: higher for the attribute; above 0 it decides for it.
        layer: of the model; None for words.
        strength: C; None where there is none.
        quality: AUC on the calibration texts.
        converged: whether its fit came to an end; otherwise it was stopped, and others might do better.
    """

    scores_N: np.ndarray
    layer: int | None
    strength: float | None
    quality: float
    converged: bool = True


def difference_of_means(mean_ND: np.ndarray, sides: Sides, layer: int) -> Baseline:
    """Projection of the mean residual on the difference of the classes' means, from the middle between them."""
    found_RD = mean_ND[sides.discovery_R].astype(np.float64)
    positive_R = sides.positive_N[sides.discovery_R]
    high_D, low_D = found_RD[positive_R].mean(0), found_RD[~positive_R].mean(0)
    way_D = high_D - low_D
    scores_N = (mean_ND.astype(np.float64) - (high_D + low_D) / 2) @ way_D
    return Baseline(scores_N, layer, None, sides.calibration_auc(scores_N))


def residual_inputs(mean_ND: np.ndarray, sides: Sides, rows_R: np.ndarray | None = None) -> np.ndarray:
    """Mean residuals with every dimension at mean 0 and deviation 1 over the texts the probe is fitted on."""
    fit_RD = mean_ND[sides.discovery_R if rows_R is None else rows_R].astype(np.float64)
    deviation_D = fit_RD.std(0)
    return (mean_ND - fit_RD.mean(0)) / np.where(deviation_D > 0, deviation_D, 1.0)


def feature_inputs(codes_NF: sparse.csr_matrix, sides: Sides) -> sparse.csr_matrix:
    """Largest activations in units of each feature's largest one, of features that fire in two discovery texts."""
    found = codes_NF[sides.discovery_R]
    kept_F = np.bincount(found.indices, minlength=codes_NF.shape[1]) >= 2
    largest_F = found.max(0).toarray()[0].astype(np.float64)
    return (codes_NF[:, kept_F] @ sparse.diags(1.0 / largest_F[kept_F])).tocsr()


def word_inputs(texts: Sequence[str], rows_R: np.ndarray) -> sparse.csr_matrix:
    """TF-IDF of words and of characters within words; what it knows comes from ``rows_R`` alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = [texts[row] for row in rows_R]
    common = {"sublinear_tf": True, "max_features": _MOST_NGRAMS, "min_df": 2 if len(known) > 20 else 1}
    # One character is a word as well: Chinese has many.
    words = TfidfVectorizer(ngram_range=_WORDS, token_pattern=r"(?u)\w+", **common)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=_CHARACTERS, **common)
    parts = []
    for one in (words, letters):
        try:
            one.fit(known)
        except ValueError:  # no n-gram stands in two texts: the other may still tell (smileys are no words)
            continue
        parts.append(one.transform(texts))
    return sparse.hstack(parts).tocsr() if parts else sparse.csr_matrix((len(texts), 1))


def logistic(
    inputs: Any, sides: Sides, strength: float, rows_R: np.ndarray | None = None, iterations: int = ITERATIONS
) -> tuple[np.ndarray, bool]:
    """Log-odds of a logistic regression for all texts, and whether its fit converged.

    Args:
        inputs: ``[N, M]``, dense or sparse.
        sides: the truth.
        strength: C.
        rows_R: texts it is fitted on; the discovery texts when left out.
        iterations: steps at most.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if inputs.shape[1] == 0:
        # No feature fires in two texts: nothing is told, and nothing called positive.
        return np.zeros(inputs.shape[0]), True
    fit_R = sides.discovery_R if rows_R is None else rows_R
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=iterations)
    # Whoever reports the fit tells of it: a warning from here would not say which of a hundred fits it was.
    with warnings.catch_warnings(record=True, action="always", category=ConvergenceWarning) as told:
        model.fit(inputs[fit_R], sides.positive_N[fit_R])
    return model.decision_function(inputs), not any(issubclass(one.category, ConvergenceWarning) for one in told)


def probe(inputs: Any, sides: Sides, layer: int | None, strength: float = STRENGTHS[0]) -> Baseline:
    """A logistic probe of one strength."""
    scores_N, converged = logistic(inputs, sides, strength)
    return Baseline(scores_N, layer, strength, sides.calibration_auc(scores_N), converged)


def tuned(inputs: Callable[[], Any], first: Baseline | None, sides: Sides, layer: int | None) -> Baseline:
    """The best of all STRENGTHS on the calibration texts, of equally good ones the earlier.

    Args:
        inputs: makes the inputs.
        first: what the first strength gave, where it is known.
        sides: the truth.
        layer: of the inputs.
    """
    made = inputs()
    best = first or probe(made, sides, layer)
    for strength in STRENGTHS[1:]:
        other = probe(made, sides, layer, strength)
        if other.quality > best.quality:
            best = other
    return best
