"""The change of the residual stream: the one place where it is computed.

    h' = h + sum_f (z'_f - z_f) d_f

with z the SAE's activations of the unedited h and d_f the decoder direction of feature f. The SAE's error term
h - x_hat never appears, so it is kept whatever is done to z, and it cannot cancel an edit. ``add`` is the paper's
steering (arXiv 2605.11887, eq. 1): z'_f - z_f = strength. Everything is computed in float32.
"""

from __future__ import annotations

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
    """The SAE's activations z_NM of some features, float32.

    Args:
        sae: on the device of the residual stream.
        resid_ND: unedited residual stream.
        features_M: feature ids.
        without_topk: ReLU(w_f x + b_f) of these rows alone. A feature that others would push out of the k kept ones
            then counts as active: another quantity, and not what the SAE decodes.
    """
    x_ND = resid_ND.to(sae.dtype)
    if without_topk:
        return torch.relu(x_ND @ sae.W_enc_FD[features_M].t() + sae.b_enc_F[features_M]).float()
    if len(features_M) > _RANKED_AT_MOST:
        values_NK, indices_NK = sae.encode(x_ND)
        hit_NKM = indices_NK[:, :, None] == features_M
        return (values_NK[:, :, None] * hit_NKM).sum(1).float()
    parts = [_ranked(sae, part_ND, features_M) for part_ND in x_ND.split(max(1, _SCORES_AT_ONCE // sae.d_sae))]
    return torch.cat(parts).float() if len(parts) != 1 else parts[0].float()


#: Up to so many features are looked up by their rank; more by the top-k selection itself.
_RANKED_AT_MOST = 8
_SCORES_AT_ONCE = 1 << 24


def _ranked(sae: TopKSae, x_ND: Tensor, features_M: Tensor) -> Tensor:
    """A feature is kept exactly when fewer than k others come before it: counting them is less work than sorting all.

    Equal values are taken by lowest id, as :meth:`TopKSae.encode` does.
    """
    scores_NF = torch.relu(sae.pre_activations(x_ND))
    columns = []
    for feature in features_M.tolist():
        z_N = scores_NF[:, feature]
        before_N = (scores_NF > z_N[:, None]).sum(1)
        if feature:
            before_N += (scores_NF[:, :feature] == z_N[:, None]).sum(1)
        columns.append(z_N * (before_N < sae.k))
    return torch.stack(columns, 1)
