"""The change of the residual stream: the one place where it is computed.

    h' = h + sum_f (z'_f - z_f) d_f

with z the SAE's activations of the unedited h and d_f the decoder direction of feature f. The SAE's error term
h - x_hat never appears, so it is kept whatever is done to z, and it cannot cancel an edit. ``add`` is the paper's
steering (arXiv 2605.11887, eq. 1): z'_f - z_f = strength. Everything is computed in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qscope.sae.topk import TopKSae
from qscope.v1 import steering_pb2 as pb

#: Operations whose change does not depend on the residual stream.
CONSTANT_OPS = frozenset({pb.STEERING_OP_ADD})
#: Operations that read the feature's activation.
ACTIVATION_OPS = frozenset(
    {
        pb.STEERING_OP_SET,
        pb.STEERING_OP_CLAMP_MIN,
        pb.STEERING_OP_CLAMP_MAX,
        pb.STEERING_OP_SCALE,
        pb.STEERING_OP_ZERO,
        pb.STEERING_OP_NEGATE,
    }
)


def coefficients(op: pb.SteeringOp, z_NM: Tensor, strength_M: Tensor) -> Tensor:
    """z' - z of M features at N tokens.

    Args:
        op: ``add`` or one of ACTIVATION_OPS.
        z_NM: activations; ``add`` looks at their shape only.
        strength_M: in activation units; the factor for ``scale``; unused by ``zero`` and ``negate``.
    """
    match op:
        case pb.STEERING_OP_ADD:
            return strength_M.expand_as(z_NM)
        case pb.STEERING_OP_SET:
            return strength_M - z_NM
        case pb.STEERING_OP_CLAMP_MIN:
            return torch.maximum(z_NM, strength_M) - z_NM
        case pb.STEERING_OP_CLAMP_MAX:
            return torch.minimum(z_NM, strength_M) - z_NM
        case pb.STEERING_OP_SCALE:
            return (strength_M - 1) * z_NM
        case pb.STEERING_OP_ZERO:
            return -z_NM
        case pb.STEERING_OP_NEGATE:
            return -2 * z_NM
    raise AssertionError(f"operation {op} has no activation")


def projection_change(resid_ND: Tensor, unit_MD: Tensor, low_M: Tensor, high_M: Tensor) -> Tensor:
    """The change that brings the projection on each unit direction into [low, high].

    Several directions are treated one by one on the unedited stream: exact when they are orthogonal.
    """
    projection_NM = resid_ND @ unit_MD.t()
    return (projection_NM.clamp(low_M, high_M) - projection_NM) @ unit_MD


def activations(sae: TopKSae, resid_ND: Tensor, features_M: Tensor, *, without_topk: bool = False) -> Tensor:
    """The SAE's activations z_NM of some features, float32; see :class:`Activations`."""
    return Activations(sae, features_M, without_topk=without_topk)(resid_ND)


class Activations:
    """Reads the activations of some of an SAE's features off the residual stream.

    Args:
        sae: on the device of the residual stream.
        features_M: feature ids.
        without_topk: ReLU(w_f x + b_f) of these rows alone. A feature that others would push out of the k kept ones
            then counts as active: another quantity, and not what the SAE decodes.
    """

    def __init__(self, sae: TopKSae, features_M: Tensor, *, without_topk: bool = False) -> None:
        self._sae, self._features_M, self._without_topk = sae, features_M, without_topk
        self._W_DM = sae.W_enc_FD[features_M].t()
        self._b_M = sae.b_enc_F[features_M]
        # The same product in another shape may round otherwise: what is within rounding of zero counts as positive.
        rounding = 4 * torch.finfo(sae.dtype).eps * len(self._W_DM) ** 0.5
        self._raised_b_M = self._b_M + rounding * self._b_M.abs()
        self._slack_M = (rounding * torch.linalg.vector_norm(self._W_DM, dim=0)).float().cpu().numpy()

    def __call__(self, resid_ND: Tensor) -> Tensor:
        """z_NM, float32, of the unedited residual stream."""
        z_NM = self.firing(resid_ND)
        return resid_ND.new_zeros(len(resid_ND), len(self._b_M), dtype=torch.float32) if z_NM is None else z_NM

    def firing(self, resid_ND: Tensor) -> Tensor | None:
        """The same; None when none of the features is active anywhere and that was cheap to see."""
        sae, features_M = self._sae, self._features_M
        x_ND = resid_ND.to(sae.dtype)
        if self._without_topk:
            return torch.relu(torch.addmm(self._b_M, x_ND, self._W_DM)).float()
        if len(features_M) > _RANKED_AT_MOST:
            values_NK, indices_NK = sae.encode(x_ND)
            hit_NKM = indices_NK[:, :, None] == features_M
            return (values_NK[:, :, None] * hit_NKM).sum(1).float()
        if x_ND.device.type != "cpu":
            # Asking which tokens to leave out would make the device wait.
            return _ranked(sae, x_ND, features_M).float()
        may_fire_N = self._may_fire(x_ND)
        if not may_fire_N.any():
            return None
        if may_fire_N.all():
            return _ranked(sae, x_ND, features_M).float()
        chosen_N = torch.from_numpy(may_fire_N)
        z_NM = x_ND.new_zeros(len(x_ND), len(features_M), dtype=torch.float32)
        z_NM[chosen_N] = _ranked(sae, x_ND[chosen_N], features_M).float()
        return z_NM

    def _may_fire(self, x_ND: Tensor) -> np.ndarray:
        """Tokens at which some of the features can be active: elsewhere their own products, or ReLU, already say zero.

        Of a trained SAE's features few are positive on a token, and ranking one costs the products of all. For the few
        numbers of a step of decoding NumPy takes less time than Torch.
        """
        u_NM = torch.addmm(self._raised_b_M, x_ND, self._W_DM).float().numpy()
        size_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True).float().numpy()
        # Negated, so that NaN is ranked and shows.
        return ~(u_NM + size_N1 * self._slack_M <= 0).all(1)


#: Up to so many features are looked up by their rank; more by the top-k selection itself.
_RANKED_AT_MOST = 8
_SCORES_AT_ONCE = 1 << 24


def _ranked(sae: TopKSae, x_ND: Tensor, features_M: Tensor) -> Tensor:
    parts = [_ranked_at_once(sae, part_ND, features_M) for part_ND in x_ND.split(max(1, _SCORES_AT_ONCE // sae.d_sae))]
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def _ranked_at_once(sae: TopKSae, x_ND: Tensor, features_M: Tensor) -> Tensor:
    """A feature is kept exactly when fewer than k others come before it: counting them is less work than sorting all.

    Equal values are taken by lowest id, as :meth:`TopKSae.encode` does.
    """
    u_NF = sae.pre_activations(x_ND)
    columns = []
    for feature in features_M.tolist():
        u_N1 = u_NF[:, feature, None]
        before_N = (u_NF > u_N1).sum(1)
        if feature:
            before_N += (u_NF[:, :feature] == u_N1).sum(1)
        # Where ReLU cuts u itself off, it does not matter what came before.
        columns.append(u_N1[:, 0].relu() * (before_N < sae.k))
    return torch.stack(columns, 1)
