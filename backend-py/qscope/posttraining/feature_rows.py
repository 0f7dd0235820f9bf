"""The encoder rows of a few features: all that a loss or a reward on pre-activations needs of an SAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.sae.topk import TopKSae


@dataclass(frozen=True)
class FeatureRows:
    """M features of one layer's SAE.

    Attributes:
        layer: decoder block, from 0.
        features: their ids.
        W_enc_MD, b_enc_M: their rows of the encoder, float32 or finer, without gradients.
    """

    layer: int
    features: tuple[int, ...]
    W_enc_MD: Tensor
    b_enc_M: Tensor

    @classmethod
    def of(cls, sae: TopKSae, features: Sequence[int], *, field: str = "") -> FeatureRows:
        """Copies the rows, so that the SAE itself can go.

        Args:
            sae: its decoder is not looked at.
            features: ids; may repeat.
            field: experiment field that named them, for errors.

        Raises:
            UserError: an id that the SAE does not have (FEATURE_OUT_OF_RANGE).
        """
        for feature in features:
            if not 0 <= feature < sae.d_sae:
                raise UserError(
                    f"Feature {feature} does not exist: the SAE of layer {sae.layer} has {sae.d_sae:,} features.",
                    remedy=f"Choose features from 0 to {sae.d_sae - 1}.",
                    reason="FEATURE_OUT_OF_RANGE",
                    field=field,
                )
        dtype = torch.promote_types(sae.dtype, torch.float32)
        index_M = torch.tensor(features, dtype=torch.int64, device=sae.device)
        W_enc_MD, b_enc_M = (part[index_M].detach().to(dtype) for part in (sae.W_enc_FD, sae.b_enc_F))
        return cls(sae.layer, tuple(features), W_enc_MD, b_enc_M)

    def to(self, device: torch.device | str) -> FeatureRows:
        """The same rows elsewhere."""
        return replace(self, W_enc_MD=self.W_enc_MD.to(device), b_enc_M=self.b_enc_M.to(device))

    def pre_activations(self, resid_BTD: Tensor) -> Tensor:
        """``u_BTM``: what the features have before ReLU and top-k, float32 or finer; differentiable in the residual.

        A trainer's autocast would round the product to bfloat16, three digits where thresholds are differences of
        means; it is switched off here, and the cost is M rows of a matrix.
        """
        dtype = torch.promote_types(resid_BTD.dtype, torch.float32)
        with torch.autocast(resid_BTD.device.type, enabled=False):
            return torch.nn.functional.linear(resid_BTD.to(dtype), self.W_enc_MD.to(dtype), self.b_enc_M.to(dtype))
