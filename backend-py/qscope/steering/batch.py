"""A batch of rows, each under its own spec: hooks for the model, and the proof of what they did.

At a layer, all activations are read from the residual stream as it arrives there, and the changes of the row's edits
are added up (``conflict`` says otherwise). Rows that name equal edits share their arithmetic; rows that name none are
not touched: a batch without edits installs no hook at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qscope.errors import UserError
from qscope.models.forward_tokens import ForwardTokens
from qscope.models.hooks import TokenEdit
from qscope.models.loading import LoadedModel
from qscope.models.prompts import Prompt
from qscope.sae.topk import TopKSae
from qscope.steering.edit import CONSTANT_OPS, activations, coefficients, projection_change
from qscope.steering.proof import Proof, RowProof
from qscope.steering.resolve import LayerEdit, ResolvedSpec
from qscope.steering.saes import Saes
from qscope.steering.where import Selector, TokenKinds, token_ids
from qscope.v1 import steering_pb2 as pb

Condition = tuple[int, int, float]


@dataclass(eq=False)
class _Member:
    """One edit of one layer with the rows that ask for it."""

    edit: LayerEdit
    rows: list[int]
    selector: Selector
    directions_MD: Tensor
    strength_M: Tensor
    low_M: Tensor
    high_M: Tensor
    features_M: Tensor

    @property
    def constant(self) -> bool:
        return self.edit.op in CONSTANT_OPS and not self.edit.when


class SteeredBatch:
    """Steering of one batch, one :class:`ResolvedSpec` per row.

    Args:
        loaded: the model.
        prompts: the rows.
        specs: one per row; equal objects share their arithmetic.
        saes: the SAEs that features and conditions belong to.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: Sequence[Prompt],
        specs: Sequence[ResolvedSpec],
        saes: Saes,
    ) -> None:
        assert len(prompts) == len(specs), "one spec per row"
        self._loaded, self._specs = loaded, list(specs)
        self._lengths_B = np.array([len(prompt) for prompt in prompts])
        self._kinds = TokenKinds(prompts, loaded.tokenizer)
        self._members = self._gather()
        self._conditions = self._conditions_by_layer()
        self._saes: dict[int, TopKSae] = {layer: saes.whole(layer) for layer in self._layers_with_activations()}
        self._aborted: set[int] = set()
        self._pass: _Pass | None = None
        self._constant = {layer: _Constant() for layer in self._members}
        self.proof = Proof(len(prompts), loaded.device)

    # -- what the generation loop takes --------------------------------------------------------------------------

    def edits(self) -> dict[int, TokenEdit]:
        """Hooks by layer, for :class:`qscope.models.generation.Generation`."""
        layers = sorted({*self._members, *self._conditions})
        return {layer: self._hook(layer) for layer in layers}

    def take_aborted(self) -> list[int]:
        """Rows whose ``abort_when`` held in the last pass; each is reported once."""
        rows, self._aborted = sorted(self._aborted), set()
        return rows

    def row_proofs(self) -> list[RowProof]:
        """What was done to every row so far, at the layers its spec edits. Synchronises with the device."""
        proofs = self.proof.rows()
        for proof, spec in zip(proofs, self._specs, strict=True):
            layers = {edit.layer for edit in spec.edits}
            proof.layers = {layer: count for layer, count in proof.layers.items() if layer in layers}
        return proofs

    def refuse_if_nothing_happened(self, *, at: str = "steering") -> None:
        """A spec that asked for a change and made none, on any of its rows, is a failure.

        Raises:
            UserError: see :meth:`nothing_happened`.
        """
        error = self.nothing_happened(at=at)
        if error is not None:
            raise error

    def nothing_happened(self, *, at: str = "steering") -> UserError | None:
        """The error (NOTHING_STEERED) for the first spec that changed nothing on its rows, and what is known of why."""
        proofs = self.row_proofs()
        for spec in dict.fromkeys(self._specs):
            rows = [row for row, other in enumerate(self._specs) if other is spec]
            if spec.changes_nothing or any(proofs[row].changed for row in rows):
                continue
            skipped = sum(proofs[row].skipped for row in rows)
            reads = any(edit.reads_activations for edit in spec.edits)
            if skipped:
                why = f"The condition held at none of {skipped:,} selected tokens"
                remedy = "Lower the threshold, or choose a feature that fires on these prompts."
            elif reads and any(proofs[row].selected for row in rows):
                why = "The features were silent at every selected token, so there was nothing to change"
                remedy = "Choose features that fire on these prompts, or add instead."
            else:
                why = "No token was selected"
                remedy = (
                    "Widen `where`: phase all also edits the prompt, and a generated token is edited when it is read, "
                    "so the last one never is."
                )
            return UserError(f"{why}: nothing was steered.", remedy=remedy, reason="NOTHING_STEERED", field=at)
        return None

    # -- set-up --------------------------------------------------------------------------------------------------

    def _gather(self) -> dict[int, list[_Member]]:
        rows_of: dict[ResolvedSpec, list[int]] = {}
        for row, spec in enumerate(self._specs):
            rows_of.setdefault(spec, []).append(row)
        members: dict[int, list[_Member]] = {}
        device = self._loaded.device
        for spec, rows in rows_of.items():
            for edit in spec.edits:
                names = token_ids(edit.where, self._loaded.tokenizer, at=f"steering.edits[{edit.index}].where")
                members.setdefault(edit.layer, []).append(
                    _Member(
                        edit,
                        rows,
                        Selector(edit.where, rows, self._lengths_B, names),
                        *(part.to(device) for part in (edit.directions_MD, edit.strength_M, edit.low_M, edit.high_M)),
                        torch.tensor(edit.features, dtype=torch.long, device=device),
                    )
                )
        return members

    def _conditions_by_layer(self) -> dict[int, list[Condition]]:
        found: dict[int, list[Condition]] = {}
        for spec in dict.fromkeys(self._specs):
            for condition in (*spec.abort_when, *(one for edit in spec.edits for one in edit.when)):
                known = found.setdefault(condition[0], [])
                if condition not in known:
                    known.append(condition)
        return found

    def _layers_with_activations(self) -> set[int]:
        reading = {layer for layer, members in self._members.items() for m in members if m.edit.reads_activations}
        return reading | set(self._conditions)

    # -- at work -------------------------------------------------------------------------------------------------

    def _hook(self, layer: int) -> TokenEdit:
        members = self._members.get(layer, [])
        simple = all(member.constant for member in members)
        ordered = any(
            spec.conflict in (pb.CONFLICT_PRIORITY, pb.CONFLICT_SEQUENTIAL)
            for spec in self._specs
            if sum(edit.layer == layer for edit in spec.edits) > 1
        )

        def hook(resid_BTD: Tensor, tokens: ForwardTokens) -> Tensor:
            current = self._current(tokens)
            if layer in self._conditions:
                self._read_conditions(layer, resid_BTD, current)
            if not members:
                return resid_BTD
            if simple and not ordered:
                return self._add_constant(layer, members, resid_BTD, current)
            return self._change(layer, members, resid_BTD, current)

        return hook

    def _current(self, tokens: ForwardTokens) -> _Pass:
        if self._pass is None or self._pass.tokens is not tokens:
            needs_kinds = any(m.selector.needs_kinds for members in self._members.values() for m in members)
            self._pass = _Pass(tokens, self._lengths_B, self._kinds.flags(tokens) if needs_kinds else None)
            self.proof.forward_passes += 1
        return self._pass

    def _read_conditions(self, layer: int, resid_BTD: Tensor, current: _Pass) -> None:
        """Which conditions hold where, from the stream as it arrives at their layer."""
        conditions = self._conditions[layer]
        valid_BT = current.tokens.valid_BT
        features_M = torch.tensor([feature for _, feature, _ in conditions], device=resid_BTD.device)
        z_NM = activations(self._saes[layer], _gathered(resid_BTD, valid_BT), features_M).cpu().numpy()
        for index, condition in enumerate(conditions):
            held_BT = np.zeros(valid_BT.shape, dtype=bool)
            held_BT[valid_BT] = z_NM[:, index] > condition[2]
            current.held[condition] = held_BT
        for row, spec in enumerate(self._specs):
            if not spec.abort_when:
                continue
            mine = [one for one in spec.abort_when if one[0] == layer]
            # The first token is an attention sink: what fires there says nothing about the text.
            beyond_T = current.tokens.position_BT[row] > 0
            if any((current.held[one][row] & beyond_T).any() for one in mine):
                self._aborted.add(row)

    def _add_constant(self, layer: int, members: list[_Member], resid_BTD: Tensor, current: _Pass) -> Tensor:
        """Edits that are vectors: one product of masks and vectors, kept while the masks stay the same."""
        masks_EBT = np.stack([current.selected(member) for member in members])
        if not masks_EBT.any():
            return resid_BTD
        kept = self._constant[layer]
        if kept.masks_EBT is None or not np.array_equal(kept.masks_EBT, masks_EBT):
            kept.update(masks_EBT, members, resid_BTD)
        ratio_BT = kept.length_BT / resid_BTD.norm(dim=-1, dtype=torch.float32).clamp_min(1e-30)
        self.proof.count(layer, kept.changed_BT, current.generated_BT, ratio_BT)
        return (resid_BTD + kept.delta_BTD) if resid_BTD.dtype == torch.float32 else resid_BTD.float() + kept.delta_BTD

    def _change(self, layer: int, members: list[_Member], resid_BTD: Tensor, current: _Pass) -> Tensor:
        """The general case, edit by edit; a row with ``sequential`` sees its own earlier edits."""
        taken_BT = np.zeros(current.tokens.valid_BT.shape, dtype=bool)
        before_BTD = resid_BTD.float()
        delta_BTD: Tensor | None = None
        for member in members:
            selected_BT = current.selected(member)
            for condition in member.edit.when:
                held_BT = current.held[condition]
                self.proof.skip(layer, selected_BT & ~held_BT)
                selected_BT = selected_BT & held_BT
            if any(self._specs[row].conflict == pb.CONFLICT_PRIORITY for row in member.rows):
                priority = [row for row in member.rows if self._specs[row].conflict == pb.CONFLICT_PRIORITY]
                selected_BT = selected_BT.copy()
                selected_BT[priority] &= ~taken_BT[priority]
            if not selected_BT.any():
                continue
            taken_BT |= selected_BT
            sequential = self._specs[member.rows[0]].conflict == pb.CONFLICT_SEQUENTIAL and delta_BTD is not None
            seen_BTD = before_BTD + delta_BTD if sequential else before_BTD
            change_BTD = _scattered(self._delta_ND(member, _gathered(seen_BTD, selected_BT)), selected_BT, before_BTD)
            delta_BTD = change_BTD if delta_BTD is None else delta_BTD + change_BTD
        if delta_BTD is None:
            return resid_BTD
        length_BT = delta_BTD.norm(dim=-1)
        self.proof.select(taken_BT)
        ratio_BT = length_BT / before_BTD.norm(dim=-1).clamp_min(1e-30)
        self.proof.count(layer, (length_BT > 0).cpu().numpy(), current.generated_BT, ratio_BT)
        return before_BTD + delta_BTD

    def _delta_ND(self, member: _Member, resid_ND: Tensor) -> Tensor:
        edit = member.edit
        if edit.op == pb.STEERING_OP_PROJECTION_CAP:
            return projection_change(resid_ND, member.directions_MD, member.low_M, member.high_M)
        if edit.reads_activations:
            z_NM = activations(self._saes[edit.layer], resid_ND, member.features_M, without_topk=edit.without_topk)
        else:
            z_NM = resid_ND.new_zeros(len(resid_ND), len(member.directions_MD))
        return coefficients(edit.op, z_NM, member.strength_M) @ member.directions_MD


class _Pass:
    """What is known about one forward pass, worked out once for all its layers."""

    def __init__(self, tokens: ForwardTokens, lengths_B: np.ndarray, flags_BT: np.ndarray | None) -> None:
        self.tokens, self._flags_BT = tokens, flags_BT
        self.generated_BT = tokens.valid_BT & (tokens.position_BT >= lengths_B[:, None])
        self.held: dict[Condition, np.ndarray] = {}
        self._selected: dict[int, np.ndarray] = {}

    def selected(self, member: _Member) -> np.ndarray:
        """Mask of the tokens a member's place selects; not to be changed in place."""
        known = self._selected.get(id(member.selector))
        if known is None:
            known = self._selected[id(member.selector)] = member.selector(self.tokens, self._flags_BT)
        return known


class _Constant:
    """The sum of a layer's constant edits under the masks of the last pass: decoding steps mostly repeat them."""

    def __init__(self) -> None:
        self.masks_EBT: np.ndarray | None = None

    def update(self, masks_EBT: np.ndarray, members: list[_Member], resid_BTD: Tensor) -> None:
        vectors_ED = torch.stack([member.strength_M @ member.directions_MD for member in members])
        masks_BTE = torch.from_numpy(np.moveaxis(masks_EBT, 0, -1)).to(vectors_ED)
        self.masks_EBT = masks_EBT
        self.delta_BTD = masks_BTE @ vectors_ED
        self.length_BT = self.delta_BTD.norm(dim=-1)
        self.changed_BT = (self.length_BT > 0).cpu().numpy()


def _gathered(resid_BTD: Tensor, mask_BT: np.ndarray) -> Tensor:
    """The residual stream [N, D] of the masked tokens. All of them, as in most decoding steps, need no copy."""
    if mask_BT.all():
        return resid_BTD.flatten(0, 1)
    return resid_BTD[torch.from_numpy(mask_BT).to(resid_BTD.device)]


def _scattered(delta_ND: Tensor, mask_BT: np.ndarray, like_BTD: Tensor) -> Tensor:
    """Changes of the masked tokens as [B, T, D], zero elsewhere."""
    if mask_BT.all():
        return delta_ND.view_as(like_BTD)
    delta_BTD = torch.zeros_like(like_BTD)
    delta_BTD[torch.from_numpy(mask_BT).to(like_BTD.device)] = delta_ND
    return delta_BTD
