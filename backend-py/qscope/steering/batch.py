"""A batch of rows, each under its own spec: hooks for the model, and the proof of what they did.

At a layer, all activations are read from the residual stream as it arrives there, and the changes of the row's edits
are added up (``conflict`` says otherwise). Rows that name equal edits share their arithmetic; rows that name none are
not touched: a batch without edits installs no hook at all.
"""

from __future__ import annotations

import operator
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
from qscope.steering.edit import CONSTANT_OPS, Activations, coefficients, projection_change
from qscope.steering.proof import LayerProof, Proof, RowProof
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
    activations: Activations | None
    sequential: bool
    by_priority: list[int]

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
        self._members = self._gather(saes)
        selectors = [member.selector for members in self._members.values() for member in members]
        self._needs_kinds = any(selector.needs_kinds for selector in selectors)
        self._by_phase_alone = all(selector.by_phase_alone for selector in selectors)
        self._conditions = self._conditions_by_layer()
        self._condition_activations = {
            layer: self._activations(saes, layer, [feature for _, feature, _ in conditions])
            for layer, conditions in self._conditions.items()
        }
        self._aborting = [row for row, spec in enumerate(self._specs) if spec.abort_when]
        self._aborted: set[int] = set()
        self._pass: _Pass | None = None
        self.proof = Proof(len(prompts), loaded.device)
        self._constant = {layer: _Constant(self.proof.at(layer)) for layer in self._members}

    # -- what the generation loop takes --------------------------------------------------------------------------

    def edits(self) -> dict[int, TokenEdit]:
        """Hooks by layer, for :class:`qscope.models.generation.Generation`."""
        layers = sorted({*self._members, *self._conditions})
        return {layer: self._hook(layer) for layer in layers}

    def take_aborted(self) -> list[int]:
        """Rows whose ``abort_when`` held in the last pass; each is reported once."""
        if not self._aborted:
            return []
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

        Args:
            at: see :meth:`nothing_happened`.

        Raises:
            UserError: see :meth:`nothing_happened`.
        """
        error = self.nothing_happened(at=at)
        if error is not None:
            raise error

    def nothing_happened(self, *, at: str = "steering") -> UserError | None:
        """The error (NOTHING_STEERED) for the first spec that changed nothing on its rows, and what is known of why.

        Args:
            at: field of the spec; ``{row}`` in it stands for the first of its rows.
        """
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
            return UserError(
                f"{why}: nothing was steered.", remedy=remedy, reason="NOTHING_STEERED", field=at.format(row=rows[0])
            )
        return None

    # -- set-up --------------------------------------------------------------------------------------------------

    def _gather(self, saes: Saes) -> dict[int, list[_Member]]:
        rows_of: dict[ResolvedSpec, list[int]] = {}
        selectors: dict[tuple[bytes, int], Selector] = {}
        for row, spec in enumerate(self._specs):
            rows_of.setdefault(spec, []).append(row)
        members: dict[int, list[_Member]] = {}
        device = self._loaded.device
        for spec, rows in rows_of.items():
            for edit in spec.edits:
                names = token_ids(edit.where, self._loaded.tokenizer, at=f"steering.edits[{edit.index}].where")
                # The layers of one edit, and edits of one place, ask once a pass.
                key = (edit.where.SerializeToString(deterministic=True), rows[0])
                selector = selectors.setdefault(key, Selector(edit.where, rows, self._lengths_B, names))
                members.setdefault(edit.layer, []).append(
                    _Member(
                        edit,
                        rows,
                        selector,
                        *(part.to(device) for part in (edit.directions_MD, edit.strength_M, edit.low_M, edit.high_M)),
                        self._activations(saes, edit.layer, edit.features, edit.without_topk)
                        if edit.reads_activations
                        else None,
                        sequential=spec.conflict == pb.CONFLICT_SEQUENTIAL,
                        by_priority=rows if spec.conflict == pb.CONFLICT_PRIORITY else [],
                    )
                )
        return members

    def _activations(self, saes: Saes, layer: int, features: Sequence[int], without_topk: bool = False) -> Activations:
        features_M = torch.tensor(features, dtype=torch.long, device=self._loaded.device)
        return Activations(saes.whole(layer), features_M, without_topk=without_topk)

    def _conditions_by_layer(self) -> dict[int, list[Condition]]:
        found: dict[int, list[Condition]] = {}
        for spec in dict.fromkeys(self._specs):
            for condition in (*spec.abort_when, *(one for edit in spec.edits for one in edit.when)):
                known = found.setdefault(condition[0], [])
                if condition not in known:
                    known.append(condition)
        return found

    # -- at work -------------------------------------------------------------------------------------------------

    def _hook(self, layer: int) -> TokenEdit:
        members = self._members.get(layer, [])
        constant = self._constant.get(layer)
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
            if constant is None:
                return resid_BTD
            if simple and not ordered:
                return constant.add(resid_BTD, members, current)
            return self._change(layer, members, resid_BTD, current)

        return hook

    def _current(self, tokens: ForwardTokens) -> _Pass:
        current = self._pass
        if current is None or current.tokens is not tokens:
            self.proof.forward_passes += 1
            if tokens.decoding and current is not None and current.repeats:
                current.tokens = tokens
            else:
                flags_BT = self._kinds.flags(tokens) if self._needs_kinds else None
                current = self._pass = _Pass(tokens, self._lengths_B, flags_BT, self._pass)
                current.repeats = tokens.decoding and self._by_phase_alone
        return current

    def _read_conditions(self, layer: int, resid_BTD: Tensor, current: _Pass) -> None:
        """Which conditions hold where, from the stream as it arrives at their layer."""
        conditions, valid_BT = self._conditions[layer], current.valid_BT
        resid_ND = resid_BTD.flatten(0, 1) if current.unpadded else _gathered(resid_BTD, valid_BT)
        z_NM = self._condition_activations[layer].firing(resid_ND)
        if z_NM is None:
            current.held.update(dict.fromkeys(conditions))
            return
        above_NM = z_NM.cpu().numpy() > [threshold for _, _, threshold in conditions]
        for index, condition in enumerate(conditions):
            held_BT = np.zeros(valid_BT.shape, dtype=bool)
            held_BT[valid_BT] = above_NM[:, index]
            current.held[condition] = held_BT
        for row in self._aborting:
            mine = [one for one in self._specs[row].abort_when if one[0] == layer]
            # The first token is an attention sink: what fires there says nothing about the text.
            beyond_T = current.tokens.position_BT[row] > 0
            if any(held_BT is not None and (held_BT[row] & beyond_T).any() for held_BT in map(current.held.get, mine)):
                self._aborted.add(row)

    def _change(self, layer: int, members: list[_Member], resid_BTD: Tensor, current: _Pass) -> Tensor:
        """The general case, edit by edit; a row with ``sequential`` sees its own earlier edits."""
        proof = self.proof.at(layer)
        wanted = [(member, self._wanted(member, proof, current)) for member in members]
        chosen = [(member, selected_BT) for member, selected_BT in wanted if selected_BT is not None]
        # In most steps of decoding a condition holds nowhere.
        if not chosen:
            return resid_BTD
        taken_BT = np.zeros_like(current.generated_BT)
        before_BTD = resid_BTD.float()
        delta_BTD: Tensor | None = None
        for member, selected_BT in chosen:
            if member.by_priority:
                selected_BT = selected_BT.copy()
                selected_BT[member.by_priority] &= ~taken_BT[member.by_priority]
            if not selected_BT.any():
                continue
            taken_BT |= selected_BT
            seen_BTD = before_BTD + delta_BTD if member.sequential and delta_BTD is not None else before_BTD
            change_BTD = _scattered(self._delta_ND(member, _gathered(seen_BTD, selected_BT)), selected_BT, before_BTD)
            delta_BTD = change_BTD if delta_BTD is None else delta_BTD + change_BTD
        if delta_BTD is None:
            return resid_BTD
        self.proof.select(taken_BT)
        proof.count(current.generated_BT, torch.linalg.vector_norm(delta_BTD, dim=-1), resid_BTD)
        return before_BTD + delta_BTD

    def _wanted(self, member: _Member, proof: LayerProof, current: _Pass) -> np.ndarray | None:
        """Tokens that a member's place selects and its conditions hold at; None when one of them holds nowhere."""
        selected_BT = current.selected(member)
        for condition in member.edit.when:
            held_BT = current.held[condition]
            if held_BT is None:
                proof.skip(selected_BT)
                return None
            proof.skip(selected_BT & ~held_BT)
            selected_BT = selected_BT & held_BT
        return selected_BT

    def _delta_ND(self, member: _Member, resid_ND: Tensor) -> Tensor:
        edit = member.edit
        if edit.op == pb.STEERING_OP_PROJECTION_CAP:
            return projection_change(resid_ND, member.directions_MD, member.low_M, member.high_M)
        if member.activations is not None:
            z_NM = member.activations(resid_ND)
        else:
            z_NM = resid_ND.new_zeros(len(resid_ND), len(member.directions_MD))
        return coefficients(edit.op, z_NM, member.strength_M) @ member.directions_MD


class _Pass:
    """What is known about one forward pass, worked out once for all its layers.

    Args:
        tokens: what it reads.
        lengths_B: tokens of every row's prompt.
        flags_BT: classes of the tokens, where they are asked for.
        previous: the pass before, whose masks are taken over where they are equal: who keeps something for a mask then
            sees by its identity that it still holds.
    """

    def __init__(
        self, tokens: ForwardTokens, lengths_B: np.ndarray, flags_BT: np.ndarray | None, previous: _Pass | None
    ) -> None:
        self.tokens, self._flags_BT = tokens, flags_BT
        #: Whether all masks are the same in every step of decoding, so that one object serves them all.
        self.repeats = False
        self._earlier = previous._selected if previous is not None else {}
        self.valid_BT = tokens.valid_BT
        self.unpadded = bool(self.valid_BT.all())
        self.generated_BT = self.valid_BT & (tokens.position_BT >= lengths_B[:, None])
        #: Tokens at which a condition holds; None for none at all.
        self.held: dict[Condition, np.ndarray | None] = {}
        self._selected: dict[int, np.ndarray] = {}

    def selected(self, member: _Member) -> np.ndarray:
        """Mask of the tokens a member's place selects; not to be changed in place."""
        key = id(member.selector)
        known = self._selected.get(key)
        if known is None:
            known = member.selector(self.tokens, self._flags_BT)
            earlier = self._earlier.get(key)
            if earlier is not None and earlier is not known and np.array_equal(earlier, known):
                known = earlier
            self._selected[key] = known
        return known


class _Constant:
    """The sum of a layer's constant edits, kept while its masks stay the same: decoding steps mostly repeat them.

    Args:
        proof: counts what is changed.
    """

    def __init__(self, proof: LayerProof) -> None:
        self._proof = proof
        self._pass: _Pass | None = None
        self._masks: list[np.ndarray] = []
        self._empty = True

    def add(self, resid_BTD: Tensor, members: list[_Member], current: _Pass) -> Tensor:
        """The edited stream: one product of masks and vectors, where the pass is not one known already."""
        if self._pass is not current:
            self._pass = current
            masks = [current.selected(member) for member in members]
            if len(masks) != len(self._masks) or not all(map(operator.is_, masks, self._masks)):
                self._update(masks, members)
        if self._empty:
            return resid_BTD
        self._proof.count(current.generated_BT, self._length_BT, resid_BTD)
        return resid_BTD.float() + self._delta_BTD

    def _update(self, masks: list[np.ndarray], members: list[_Member]) -> None:
        self._masks = masks
        self._empty = not any(mask_BT.any() for mask_BT in masks)
        if self._empty:
            return
        vectors_ED = torch.stack([member.strength_M @ member.directions_MD for member in members])
        masks_BTE = torch.from_numpy(np.stack(masks, -1)).to(vectors_ED)
        self._delta_BTD = masks_BTE @ vectors_ED
        self._length_BT = torch.linalg.vector_norm(self._delta_BTD, dim=-1)


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
