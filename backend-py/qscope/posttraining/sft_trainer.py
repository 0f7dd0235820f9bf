"""Supervised fine-tuning on TRL's trainer: cross-entropy on answers, and a term beside it.

TRL's part is the loop, mixed precision, the optimiser and, on a GPU, the fused output layer. Ours is the order of the
rows, the mean over the tokens of the whole step, the term, the output layer on a CPU, and what
:mod:`~qscope.posttraining.run_trainer` brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as nnf
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from trl import SFTConfig, SFTTrainer

from qscope.models.architectures import Decoder
from qscope.models.taps import tap_residuals
from qscope.posttraining.answer_head import add_answer_head
from qscope.posttraining.collective import added
from qscope.posttraining.dead_signal import refuse_no_answer
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.held_out import HeldOut
from qscope.posttraining.run_trainer import RunTrainer
from qscope.posttraining.sae_loss import answer_mask
from qscope.posttraining.sft_batches import LANGUAGE, Collator, Row, columns
from qscope.posttraining.sft_terms import ACTIVE, Forward, Term
from qscope.posttraining.training_order import TrainingOrder


class SftTrainer(RunTrainer, SFTTrainer):
    """Trains on rows; call ``bind`` and then ``train_run``.

    Args:
        model: to train, frozen parts frozen, adapters in place.
        decoder: its blocks.
        tokenizer: of the model.
        rows: to train on.
        arguments: of ``SFTConfig``; ``max_steps``, the batch and the accumulation among them.
        term: beside the cross-entropy; None for none.
        packed: whether rows hold several examples.
        order_seed: of the order of the rows.
    """

    def __init__(
        self,
        model: nn.Module,
        decoder: Decoder,
        tokenizer: Any,
        rows: Sequence[Row],
        arguments: dict[str, Any],
        *,
        term: Term | None = None,
        packed: bool = False,
        order_seed: int = 0,
    ) -> None:
        self._decoder, self._term, self._order_seed = decoder, term, order_seed
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._collator = Collator(pad or 0, packed=packed, language=term is not None)
        self._batch, self._micro_batches = GlobalBatch(0), 1
        self._active: Tensor | int = 0
        self._held_out: HeldOut | None = None
        self._held_out_every = 0
        self.held_out_losses: dict[int, float] = {}
        arguments = {**arguments, "dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None}
        config = SFTConfig(**arguments)
        # transformers would spread a process that sees several GPUs over all of them.
        config._n_gpu = min(1, config.n_gpu)
        super().__init__(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict(columns(rows)),
            data_collator=self._collator,
            processing_class=tokenizer,
        )
        add_answer_head(self.model)

    def hold_out(self, rows: Sequence[Row], *, every: int) -> None:
        """Measures the loss on other rows: before training, every so many steps (0: never), and after it."""
        self._held_out = HeldOut(rows, self._collator, self.args.per_device_train_batch_size)
        self._held_out_every = every

    # -- data ------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """All steps as one pass, so that a resumed run only has to count."""
        args = self.args
        order = TrainingOrder(
            len(self.train_dataset),
            batch=args.per_device_train_batch_size,
            steps=args.max_steps,
            batches=args.gradient_accumulation_steps * args.world_size,
            seed=self._order_seed,
        )
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=order,
            collate_fn=self._collator,
            pin_memory=args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """Counts the answer tokens of the step, over all micro-batches and ranks."""
        masks_BT = [answer_mask(batch["labels"]).to(device) for batch in batch_samples]
        self._batch, self._micro_batches = GlobalBatch.of(masks_BT), len(masks_BT)
        if self.state.global_step == 0:
            refuse_no_answer(self._batch.tokens)
        read = (batch.get("attention_mask", batch["input_ids"] == batch["input_ids"]) for batch in batch_samples)
        seen = torch.stack([mask_BT.sum().to(device) for mask_BT in read]).sum()
        self.count_tokens(int(added(seen)))
        return torch.tensor(self._batch.tokens, device=device)

    # -- loss ------------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Cross-entropy and the term, each over the answer tokens of the step."""
        assert not return_outputs, "nobody asks for outputs"
        term, batch = self._term, self._batch
        inputs = dict(inputs)
        language_BT = inputs.pop(LANGUAGE, None)
        labels_BT = inputs.pop("labels")
        tap = tap_residuals(self._decoder, term.layers) if term is not None and term.layers else nullcontext({})
        with tap as resids:
            nll, entropy, logits_NV = self._pass(model, inputs, labels_BT, term is not None and term.logits)
        loss = batch.scale * nll
        tokens = answer_mask(labels_BT).sum()
        self.add_metric("ce", nll, tokens)
        if entropy is not None:
            self.add_metric("entropy", entropy, tokens)
        if term is not None:
            made = Forward(inputs, labels_BT, language_BT, batch, resids, logits_NV, entropy)
            added, numbers = term(made)
            for name, (total, weight) in numbers.items():
                self.add_metric(name, total, weight)
            # Once a step, whatever the micro-batches: their sum over all ranks is the step's term times the ranks.
            self.add_metric(term.name, added / batch.ranks, 1 / (self._micro_batches * batch.ranks))
            if ACTIVE in numbers:
                self._active = self._active + numbers[ACTIVE][0]
            loss = loss + added
        return loss

    def _pass(
        self, model: nn.Module, inputs: dict[str, Tensor], labels_BT: Tensor, logits: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Summed negative log-likelihood, summed entropy and, where asked for, the logits of answer positions."""
        if not logits:
            out = model(**inputs, labels=labels_BT, fused_lm_head=True)
            return -out.log_probs.sum(), out.entropy.sum(), None
        logits_NV = model(**inputs, labels=labels_BT, answer_logits=True)["logits"].float()
        nll = nnf.cross_entropy(logits_NV, labels_BT[:, 1:][answer_mask(labels_BT)[:, 1:]], reduction="sum")
        return nll, None, logits_NV

    # -- after a step ------------------------------------------------------------------------------------------------

    def before_steps(self) -> None:
        self.measure_held_out(0)

    def after_step(self, step: int) -> None:
        if self._term is not None and self._term.layers:
            active = added(torch.as_tensor(self._active, device=self.args.device))
            self.alarms.seen("dead_signal", int(active) == 0)
            self._active = 0
        every = self._held_out_every
        if step == self.args.max_steps or (every and step % every == 0):
            self.measure_held_out(step)

    def measure_held_out(self, step: int) -> None:
        """Reports the loss on the rows of :meth:`hold_out`, if there are any. Collective."""
        if self._held_out is None:
            return
        with self.compute_loss_context_manager():
            loss = self._held_out.loss(self.model_wrapped, self.args.device)
        self.held_out_losses[step] = loss
        self.report(step, {"held_out_loss": loss})
        first = next(iter(self.held_out_losses.values()))
        # Not finite is worse than any number.
        self.alarms.seen("collapse", not loss <= 2 * first, f"{loss:.4f}, at first {first:.4f}")

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {"held_out": [[step, loss] for step, loss in self.held_out_losses.items()]}

    def load_extra_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.held_out_losses = {step: loss for step, loss in state["held_out"]}
