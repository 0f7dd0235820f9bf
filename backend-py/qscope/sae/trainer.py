"""Trains one TopK SAE per layer from batches of activations.

Every layer is trained in its own standard units, ``x_s = scale * (x - shift)``: the shift is the geometric median of a
first sample, the scale makes the median squared distance from it one. The loss is ``sum((x_hat_s - x_s)^2) / tokens``,
so that learning rate, clip and epsilon mean the same at every layer and training on c x gives the same directions as
training on x. At this scale entries of the weights (unit rows) and of the biases are of one size, about d_in^-1/2, so
Adam's steps, which are of one size too, move both at the same pace; at a scale of d_in the biases lag behind. ReLU
commutes with a positive scale, so the exported SAE takes raw activations, keeps W_enc and the unit-norm W_dec as they
are, and folds shift and scale into the two biases.

Layers share nothing but the batch: training N together equals training N apart, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.sae.auxk import add_aux_gradients
from qscope.sae.kernels import AdamRates, Gradients, Kernel, choose_kernel
from qscope.sae.layer_state import LayerState, Window
from qscope.sae.settings import (
    aux_features_per_token,
    dead_after_tokens,
    feature_count,
    learning_rate_at,
    peak_learning_rate,
    warmup_steps,
)
from qscope.sae.topk import TopKSae, fit_encoder, geometric_median, initialise
from qscope.v1 import sae_pb2

STATE_VERSION = 1

_DEAD_LIST_STEPS = 8
"""Steps between two listings of the dead features: listing them waits for the device."""

_SAMPLE_ROWS = 2048
"""Rows of the sample that the geometric median and the encoder's first scale look at."""


@dataclass(frozen=True)
class StepStats:
    """Of one step, one entry a layer, on the device; reading them waits for it."""

    step: int
    loss_L: Tensor
    aux_loss_L: Tensor
    grad_norm_L: Tensor


@dataclass(frozen=True)
class LayerMetrics:
    """One layer over the steps since the last reading.

    ``fvu`` divides summed squared errors by summed squared distances from the mean, once. ``loss`` and ``aux_loss``
    are means over steps, ``grad_norm`` is the largest norm before clipping, ``dead_share`` is the share of features
    silent for ``dead_after_tokens`` at the moment of reading.
    """

    layer: int
    loss: float
    fvu: float
    l0: float
    dead_share: float
    aux_loss: float
    grad_norm: float


@dataclass(frozen=True)
class TrainMetrics:
    """What ``SaeTrainer.metrics`` reads: ``step`` and ``tokens`` done so far, the rate of the last step, and what
    people should know of a layer."""

    step: int
    tokens: int
    learning_rate: float
    layers: list[LayerMetrics]
    warnings: dict[int, str]


class SaeTrainer:
    """Trains SAEs of one shape at several layers; see the module for the units it trains in.

    Args:
        config: the experiment's ``train_sae``, defaults filled in.
        layers: decoder blocks, from 0, in the order of the first dimension of a stacked batch.
        d_in: width of the activations.
        device: where the SAEs live and batches arrive.
        total_steps: length of the schedule; the learning rate reaches zero after that many steps.
        seed: the run's random seed; each layer derives its own generator from it, so layers do not disturb each other.
        compute_dtype: precision of the encoder product; None takes bfloat16 on a GPU and the parameters' own elsewhere.
        dtype: precision of parameters and moments.

    Raises:
        UserError: K_EXCEEDS_WIDTH.
    """

    def __init__(
        self,
        config: sae_pb2.TrainSae,
        layers: Sequence[int],
        d_in: int,
        *,
        device: torch.device | str = "cpu",
        total_steps: int,
        seed: int = 0,
        compute_dtype: torch.dtype | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device)
        self.layer_ids = list(layers)
        self.d_in = d_in
        self.d_sae = feature_count(config.sae, d_in)
        self.total_steps = total_steps
        self.step_count = 0
        self.token_count = 0
        self._config = config
        self._seed = seed
        self._dtype = dtype
        self._peak_rate = peak_learning_rate(config.optimizer, self.d_sae)
        self._dead_after = dead_after_tokens(config.aux_k, config.tokens, config.batch_tokens)
        self._k_aux = aux_features_per_token(config.aux_k, d_in)
        if compute_dtype is None and self.device.type == "cuda":
            compute_dtype = torch.bfloat16
        self._kernel: Kernel = choose_kernel(config.kernel, self.device, compute_dtype)
        self._layers: dict[int, LayerState] = {}
        self._grads: Gradients | None = None

    @property
    def kernel_name(self) -> str:
        return self._kernel.name

    @property
    def learning_rate(self) -> float:
        """Rate of the next step; zero when the run is over."""
        return learning_rate_at(self.step_count, self.total_steps, self._config.optimizer, self._peak_rate)

    def initialise(self, sample: Tensor | Mapping[int, Tensor]) -> None:
        """Starts every layer from a sample of its activations, for example the first buffer.

        Without this call the first batch is the sample.

        Raises:
            UserError: BAD_ACTIVATIONS when a layer's sample is constant, NaN or infinite.
        """
        for layer, x_BD in self._by_layer(sample):
            self._layers[layer] = self._fresh_layer(layer, x_BD.to(self._dtype))

    def step(self, acts: Tensor | Mapping[int, Tensor]) -> StepStats:
        """One step of every layer, without waiting for the device.

        Args:
            acts: raw activations, ``acts_LBD`` in the order of ``layers`` or ``{layer: x_BD}``; layers may differ in B.
        """
        if not self._layers:
            self.initialise(acts)
        if self.step_count >= self.total_steps:
            raise AssertionError(f"step {self.step_count} is past the schedule of {self.total_steps} steps")
        optimizer = self._config.optimizer
        rates = AdamRates(self.learning_rate, optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.clip_norm)
        results = [self._layer_step(self._layers[layer], x_BD, rates) for layer, x_BD in self._by_layer(acts)]
        loss_L, aux_loss_L, grad_norm_L = (torch.stack(column) for column in zip(*results, strict=True))
        self.token_count += max(x_BD.shape[0] for _, x_BD in self._by_layer(acts))
        self.step_count += 1
        return StepStats(self.step_count - 1, loss_L, aux_loss_L, grad_norm_L)

    def metrics(self) -> TrainMetrics:
        """Reads and empties the window; waits for the device.

        Raises:
            UserError: NAN_LOSS, naming the step and the layer.
        """
        self.check_finite()
        measured = [self._layer_metrics(layer_id, layer) for layer_id, layer in self._layers.items()]
        past_warmup = self.step_count > warmup_steps(self._config.optimizer, self.total_steps)
        warnings = {
            one.layer: f"FVU is {one.fvu:.2f} at layer {one.layer}: the SAE reconstructs worse than the mean "
            "activation would. Likely causes: activations of extreme norm reach the SAE (keep "
            "filter.drop_first_token and filter.max_norm_ratio on), or the learning rate is too high."
            for one in measured
            if one.fvu > 1 and past_warmup
        }
        last_rate = learning_rate_at(
            max(0, self.step_count - 1), self.total_steps, self._config.optimizer, self._peak_rate
        )
        return TrainMetrics(self.step_count, self.token_count, last_rate, measured, warnings)

    def check_finite(self) -> None:
        """Refuses to go on after a loss that is not finite; call it before writing a checkpoint.

        Raises:
            UserError: NAN_LOSS, naming the step and the layer.
        """
        if not self._layers:
            return
        bad_L = torch.stack([layer.bad_step for layer in self._layers.values()]).tolist()
        for layer_id, bad_step in zip(self._layers, bad_L, strict=True):
            if bad_step >= 0:
                raise UserError(
                    f"The loss of layer {layer_id} became NaN or infinite at step {bad_step}.",
                    remedy="Resume from the checkpoint before it with a lower optimizer.learning_rate, and keep "
                    "filter.max_norm_ratio on: activations of extreme norm are the usual cause.",
                    reason="NAN_LOSS",
                    field="train_sae.optimizer.learning_rate",
                )

    def sae(self, layer: int) -> TopKSae:
        """The SAE of a layer as it stands, for raw activations: a copy with shift and scale folded into the biases."""
        held = self._layers[layer]
        trained, scale = held.sae, held.scale
        shift_D = held.shift_D.to(trained.W_enc_FD.dtype)
        return TopKSae(
            W_enc_FD=trained.W_enc_FD.clone(),
            b_enc_F=trained.b_enc_F / scale - trained.W_enc_FD @ shift_D,
            W_dec_FD=trained.W_dec_FD.clone(),
            b_dec_D=trained.b_dec_D / scale + shift_D,
            k=trained.k,
            layer=layer,
        )

    def dead_mask(self, layer: int) -> Tensor:
        """``dead_F``: features of a layer silent for ``dead_after_tokens``."""
        return self._layers[layer].silent_F >= self._dead_after

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, not copied; bit-exact resume needs these and ``state_json``."""
        return {
            f"layer{layer_id}.{name}": tensor
            for layer_id, layer in self._layers.items()
            for name, tensor in layer.tensors().items()
        }

    def state_json(self) -> dict:
        """The rest of the state, ready for JSON (floats survive it exactly)."""
        return {
            "version": STATE_VERSION,
            "shape": self._shape(),
            "step": self.step_count,
            "tokens": self.token_count,
            "adam_steps": {str(layer_id): layer.adam.steps for layer_id, layer in self._layers.items()},
            "scale": {str(layer_id): layer.scale for layer_id, layer in self._layers.items()},
        }

    def load_state(self, tensors: Mapping[str, Tensor], state: dict) -> None:
        """Continues where ``state_tensors`` and ``state_json`` were taken.

        Raises:
            UserError: STATE_MISMATCH when the state belongs to another configuration.
        """
        ours, theirs = self._shape(), state.get("shape", {})
        if state.get("version") != STATE_VERSION or ours != theirs:
            differing = [name for name in ours if ours[name] != theirs.get(name)] or ["version"]
            told = ", ".join(f"{name} {theirs.get(name)} against {ours.get(name)}" for name in differing)
            raise UserError(
                f"The saved training state belongs to another experiment: {told}.",
                remedy="Resume with the experiment that wrote it, or start a new run.",
                reason="STATE_MISMATCH",
            )
        layers = {}
        # A state taken before the first step has no layers: they are made from the first batch.
        for layer_id in self.layer_ids if state["scale"] else []:
            layer = self._empty_layer(layer_id, state["scale"][str(layer_id)])
            layer.load(tensors, f"layer{layer_id}.")
            layer.adam.steps = state["adam_steps"][str(layer_id)]
            layers[layer_id] = layer
        self._layers = layers
        self.step_count, self.token_count = state["step"], state["tokens"]

    def _shape(self) -> dict:
        return {
            "layers": self.layer_ids,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "k": self._config.sae.k,
            "total_steps": self.total_steps,
            "seed": self._seed,
            "dtype": str(self._dtype),
        }

    def _by_layer(self, acts: Tensor | Mapping[int, Tensor]) -> list[tuple[int, Tensor]]:
        if isinstance(acts, Tensor):
            return list(zip(self.layer_ids, acts, strict=True))
        return [(layer, acts[layer]) for layer in self.layer_ids]

    def _fresh_layer(self, layer_id: int, x_BD: Tensor) -> LayerState:
        shift_D = geometric_median(x_BD[:_SAMPLE_ROWS])
        spread = (x_BD.double() - shift_D).square().sum(1).median().item()
        if not (math.isfinite(spread) and spread > 0):
            raise UserError(
                f"The activations of layer {layer_id} are {'constant' if spread == 0 else 'not finite'}.",
                remedy="Check the model and its precision: an SAE needs activations that vary and are finite.",
                reason="BAD_ACTIVATIONS",
                field="train_sae.layers",
            )
        layer = self._empty_layer(layer_id, math.sqrt(1.0 / spread))
        layer.shift_D.copy_(shift_D)
        origin_1D = torch.zeros(1, self.d_in, device=self.device)
        fresh = initialise(self.d_in, self.d_sae, self._config.sae.k, origin_1D, _layer_generator(self._seed, layer_id))
        for name, tensor in fresh.tensors().items():
            layer.sae.tensors()[name].copy_(tensor)
        fit_encoder(layer.sae, (x_BD[:_SAMPLE_ROWS] - layer.shift_D) * layer.scale)
        return layer

    def _empty_layer(self, layer_id: int, scale: float) -> LayerState:
        place = {"device": self.device, "dtype": self._dtype}
        return LayerState.empty(self.d_in, self.d_sae, self._config.sae.k, layer_id, scale, place)

    @torch.no_grad()
    def _layer_step(self, layer: LayerState, acts_BD: Tensor, rates: AdamRates) -> tuple[Tensor, Tensor, Tensor]:
        B = acts_BD.shape[0]
        x_BD = torch.sub(acts_BD, layer.shift_D).mul_(layer.scale)
        loss_scale = 1.0 / B
        if self._grads is None:
            self._grads = Gradients.like(layer.sae)
        forward = self._kernel.gradients(layer.sae, x_BD, loss_scale, self._grads)
        squared_error = torch.linalg.vector_norm(forward.residual_BD).square()
        loss = squared_error * loss_scale
        aux_loss = self._add_aux(layer, x_BD, forward.residual_BD)
        grad_norm = self._kernel.update(layer.sae, self._grads, layer.adam, rates)

        layer.silent_F.add_(B).masked_fill_(forward.hits_F > 0, 0)
        broken = ~(loss.isfinite() & grad_norm.isfinite()) & (layer.bad_step < 0)
        layer.bad_step.masked_fill_(broken, self.step_count)
        window = layer.window
        window.steps += 1
        window.tokens += B
        window.squared_error += squared_error
        window.squared_x += torch.linalg.vector_norm(x_BD).square()
        window.sum_x_D += x_BD.sum(0)
        window.kept += forward.hits_F.sum()
        window.loss += loss
        window.aux_loss += aux_loss
        torch.maximum(window.grad_norm, grad_norm.double(), out=window.grad_norm)
        return loss, aux_loss, grad_norm

    def _add_aux(self, layer: LayerState, x_BD: Tensor, residual_BD: Tensor) -> Tensor:
        aux = self._config.aux_k
        if aux.coefficient > 0 and self.step_count % _DEAD_LIST_STEPS == 0:
            layer.list_dead(self._dead_after)
        if aux.coefficient == 0 or layer.dead_N.numel() == 0:
            return torch.zeros((), dtype=x_BD.dtype, device=self.device)
        tokens = math.ceil(aux.token_share * x_BD.shape[0])
        return add_aux_gradients(
            layer.sae,
            x_BD[:tokens],
            residual_BD[:tokens],
            layer.dead_N,
            layer.silent_F[layer.dead_N] >= self._dead_after,
            k_aux=self._k_aux,
            coefficient=aux.coefficient,
            out=self._grads,
        )

    def _layer_metrics(self, layer_id: int, layer: LayerState) -> LayerMetrics:
        window = layer.window
        steps, tokens = window.steps.clamp_min(1), window.tokens.clamp_min(1)
        variation = window.squared_x - window.sum_x_D.square().sum() / tokens
        read = torch.stack(
            [
                window.loss / steps,
                window.squared_error / variation,
                window.kept / tokens,
                (layer.silent_F >= self._dead_after).double().mean(),
                window.aux_loss / steps,
                window.grad_norm,
            ]
        ).tolist()
        layer.window = Window.empty(self.d_in, self.device)
        return LayerMetrics(layer_id, *read)


def _layer_generator(seed: int, layer: int) -> torch.Generator:
    """A generator that depends on the seed and the layer alone, not on which other layers are trained."""
    digest = hashlib.sha256(f"{seed}/sae/initialise/layer{layer}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
