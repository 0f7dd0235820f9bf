"""Metrics of SAEs as streaming sums: add batches, read once, divide once.

A mean of per-batch ratios is another number than the ratio of sums and depends on the batch size, so nothing here
averages a ratio that is defined over the whole set. Sums are float64, on the device of the first batch; reading the
results waits for it. The definitions are the usual ones of the field (the Qwen-Scope paper reports none), and
docs/eval-sae.md prints them beside the numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class ReconstructionStats:
    """How near ``x_hat_BD`` is to ``x_BD``.

    * ``fvu``: sum ||x - x_hat||^2 / sum ||x - mean(x)||^2 over all tokens; explained variance is 1 - FVU
    * ``cosine``: mean over tokens of cos(x, x_hat), 0 where x_hat is zero
    * ``l2_ratio``: mean over tokens of ||x_hat|| / ||x||
    * ``reconstruction_bias``: E||x_hat||^2 / E[x . x_hat]; 1 is unbiased, below 1 is shrinkage
    """

    def __init__(self, d_in: int) -> None:
        self._d_in = d_in
        self._tokens = 0
        # Far from the origin, sums of squares lose the variance to rounding; around a point of the data they do not.
        self._origin_D: Tensor | None = None
        self._sum_D: Tensor
        self._sums: Tensor

    def add(self, x_BD: Tensor, x_hat_BD: Tensor) -> None:
        """Adds a batch of tokens."""
        if x_BD.shape[0] == 0:
            return
        x_BD, x_hat_BD = x_BD.double(), x_hat_BD.double()
        if self._origin_D is None:
            self._origin_D = x_BD.mean(0)
            self._sum_D = torch.zeros_like(self._origin_D)
            self._sums = torch.zeros(6, dtype=torch.float64, device=x_BD.device)
        centred_BD = x_BD - self._origin_D
        dots_B = (x_BD * x_hat_BD).sum(1)
        norms_B, hat_norms_B = x_BD.norm(dim=1), x_hat_BD.norm(dim=1)
        self._tokens += x_BD.shape[0]
        self._sum_D += centred_BD.sum(0)
        self._sums += torch.stack(
            [
                (x_BD - x_hat_BD).square().sum(),
                centred_BD.square().sum(),
                torch.where(hat_norms_B > 0, dots_B / (norms_B * hat_norms_B), torch.zeros_like(dots_B)).sum(),
                (hat_norms_B / norms_B).sum(),
                hat_norms_B.square().sum(),
                dots_B.sum(),
            ]
        )

    def results(self) -> dict[str, float]:
        """The metrics over everything added; NaN where nothing was or the data has no variance."""
        if self._origin_D is None:
            return dict.fromkeys(("fvu", "cosine", "l2_ratio", "reconstruction_bias"), math.nan)
        error, squares, cosines, ratios, hat_squares, dots = self._sums.tolist()
        variation = squares - self._sum_D.square().sum().item() / self._tokens
        return {
            "fvu": _ratio(error, variation),
            "cosine": cosines / self._tokens,
            "l2_ratio": ratios / self._tokens,
            "reconstruction_bias": _ratio(hat_squares, dots),
        }


class CodeStats:
    """How often features fire; a code counts when its value is above zero.

    * ``l0``: mean number of codes above zero per token
    * ``dead_share``: share of features that fired on none of the tokens added
    * density: share of the tokens on which a feature fires
    """

    def __init__(self, d_sae: int) -> None:
        self._d_sae = d_sae
        self._tokens = 0
        self._hits_F: Tensor | None = None

    def add(self, values_BK: Tensor, indices_BK: Tensor) -> None:
        """Adds the codes of a batch of tokens."""
        if self._hits_F is None:
            self._hits_F = torch.zeros(self._d_sae, dtype=torch.int64, device=values_BK.device)
        self._tokens += values_BK.shape[0]
        self._hits_F.scatter_add_(0, indices_BK.flatten().long(), (values_BK > 0).flatten().long())

    def density(self) -> Tensor:
        """``density_F`` in float64; all zero before anything was added."""
        if self._hits_F is None:
            return torch.zeros(self._d_sae, dtype=torch.float64)
        return self._hits_F.double() / max(1, self._tokens)

    def results(self) -> dict[str, float]:
        """The metrics over everything added; NaN where nothing was."""
        if self._hits_F is None or self._tokens == 0:
            return {"l0": math.nan, "dead_share": math.nan}
        return {
            "l0": self._hits_F.sum().item() / self._tokens,
            "dead_share": (self._hits_F == 0).double().mean().item(),
        }

    def density_histogram(self, bins_per_decade: int = 2) -> dict[str, list[float]]:
        """Features by the log10 of their density.

        Returns:
            ``log10_edges`` (n + 1, ascending, the last one 0) and ``features`` (n counts; a feature on an inner edge
            counts above it); ``silent`` holds the number of features without any hit, which have no logarithm.
        """
        density_f = self.density()
        alive_f = density_f[density_f > 0]
        silent = [float(self._d_sae - alive_f.numel())]
        if alive_f.numel() == 0:
            return {"log10_edges": [], "features": [], "silent": silent}
        # The nudge puts exact powers of ten, which log10 may miss by a rounding error, above the edge they lie on.
        bins_f = torch.floor(torch.log10(alive_f) * bins_per_decade + 1e-9).long().clamp_max(-1)
        lowest = int(bins_f.min())
        counts = torch.bincount(bins_f - lowest, minlength=-lowest)
        edges = [edge / bins_per_decade for edge in range(lowest, 1)]
        return {"log10_edges": edges, "features": [float(n) for n in counts.tolist()], "silent": silent}


class SpliceStats:
    """What the model loses when x_hat (or an ablation) takes the place of x at the hook; nats per token.

    * ``ce_clean``, ``ce_sae``, ``ce_zero``: mean next-token cross entropy of the same tokens
    * ``ce_delta``: ce_sae - ce_clean
    * ``ce_recovered``: (ce_zero - ce_sae) / (ce_zero - ce_clean), of the means
    * ``kl``: mean KL(clean || spliced)
    """

    def __init__(self) -> None:
        self._tokens = 0
        self._sums = torch.zeros(4, dtype=torch.float64)

    def add(self, *, ce_clean: Tensor, ce_sae: Tensor, ce_zero: Tensor, kl: Tensor) -> None:
        """Adds per-token values of the same tokens, four tensors of one shape."""
        self._tokens += ce_clean.numel()
        self._sums += torch.stack([values.double().sum() for values in (ce_clean, ce_sae, ce_zero, kl)]).cpu()

    def results(self) -> dict[str, float]:
        """The metrics over everything added; NaN where nothing was."""
        clean, sae, zero, kl = (_ratio(total, self._tokens) for total in self._sums.tolist())
        return {
            "ce_clean": clean,
            "ce_sae": sae,
            "ce_zero": zero,
            "ce_delta": sae - clean,
            "ce_recovered": _ratio(zero - sae, zero - clean),
            "kl": kl,
        }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
