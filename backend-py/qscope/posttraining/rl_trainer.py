"""DAPO on TRL's GRPOTrainer: its loop, optimiser and schedule; our rollouts, advantages, objective and log.

What is overridden, and why that is less than the rest would be:

* ``_prepare_inputs``: rollouts come from our sampler, are scored by graders that may fail, and are split into
  micro-batches of like length; the trainer's own shuffles them and pads all to the longest.
* ``_compute_loss``: rare negatives need a ratio, exemptions and a log of their own.

``tests/posttraining/test_rl_contract.py`` says what both count on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from trl import GRPOConfig, GRPOTrainer

from qscope.posttraining import sharding
from qscope.posttraining.answer_head import add_answer_head
from qscope.posttraining.collective import added, gathered
from qscope.posttraining.dapo import Ratio, Rollouts, dapo_loss, entry_mask
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.importance import ImportanceMode, importance_weights
from qscope.posttraining.objective import Objective
from qscope.posttraining.rewards import failed_count
from qscope.posttraining.rl_batch import micro_batches, padded
from qscope.posttraining.rl_metrics import Signs, failures, signs_of, step_sums
from qscope.posttraining.rl_step import MadeStep, StepMaker
from qscope.posttraining.run_trainer import RunTrainer

#: Entropy of the policy, in nats, below which it says one thing only.
COLLAPSED = 0.01


def grpo_config(
    arguments: dict[str, Any], *, group_size: int, iterations: int, temperature: float, max_tokens: int
) -> Any:
    """Settings of the trainer with everything switched off that would draw, shuffle or add to the loss by itself.

    Args:
        arguments: of :func:`qscope.posttraining.tuning.trainer_arguments`; the micro-batches of a step are those of a
            generation.
        group_size: rollouts of a prompt.
        iterations: updates on the same rollouts.
        temperature: at which rollouts are sampled; log-probabilities are taken at the same.
        max_tokens: of a rollout.
    """
    config = GRPOConfig(
        **arguments,
        steps_per_generation=arguments["gradient_accumulation_steps"],
        num_generations=group_size,
        num_iterations=iterations,
        temperature=temperature,
        max_completion_length=max_tokens,
        loss_type="dapo",
        beta=0.0,
        shuffle_dataset=False,
        router_aux_loss_coef=0.0,
    )
    # transformers would spread a process that sees several GPUs over all of them.
    config._n_gpu = min(1, config.n_gpu)
    return config


class RlTrainer(RunTrainer, GRPOTrainer):
    """Learns from rollouts; call :meth:`learn_from` and ``bind``, and then ``train_run``.

    Args:
        model: to train, frozen parts frozen, adapters in place.
        tokenizer: of the model.
        config: of :func:`grpo_config`.
        prompts: of a step, over all ranks.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, config: Any, *, prompts: int) -> None:
        super().__init__(
            model=model,
            # Graders that may fail, and groups that are filled up, are the steps' own.
            reward_funcs=_unused,
            args=config,
            train_dataset=_ticks(prompts, config.max_steps, config.num_iterations),
            processing_class=tokenizer,
        )
        add_answer_head(self.model, temperature=self.temperature)

    def learn_from(
        self,
        steps: StepMaker,
        objective: Objective,
        *,
        before: Callable[[], None] = lambda: None,
        made: Callable[[MadeStep], None] = lambda made: None,
        after: Callable[[int], None] = lambda step: None,
        grader_failure_share: float = 1.0,
        state: Callable[[], dict[str, Any]] = dict,
        load_state: Callable[[dict[str, Any]], None] = lambda state: None,
    ) -> None:
        """Joins the trainer to what it learns from.

        Args:
            steps: makes the rollouts of every step.
            objective: what the gradient is of.
            before: called once before the first step of a run; strengths are found there.
            made: told what was made, to be written down.
            after: called after each update; evaluation is done there.
            grader_failure_share: share of rollouts that graders fail on, above which a step shows that sign.
            state, load_state: what those keep in a checkpoint.
        """
        self._steps, self._objective = steps, objective
        self._before, self._made, self._after = before, made, after
        self._failure_share = grader_failure_share
        self._own_state, self._load_own_state = state, load_state
        self._begun = 0.0
        self._spent = 0.0
        self._entropy: list[Tensor] = []
        self._looping = 0.0

    # -- rollouts --------------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The next micro-batch; rollouts are made where they are due."""
        assert self.model.training, "evaluation goes its own way"
        place = self._step % self.args.steps_per_generation
        if place == 0:
            self._begun, self._spent = time.perf_counter(), 0.0
        if self._step % (self.args.steps_per_generation * self.num_iterations) == 0:
            self._buffered_inputs = self._generate_and_score_completions(generation_batch)
        assert self._buffered_inputs is not None, "a checkpoint between two updates on the same rollouts keeps them"
        return self._buffered_inputs[place]

    def _generate_and_score_completions(self, inputs: Any) -> list[dict[str, Any]]:
        """The micro-batches of the rollouts of a step. ``inputs``, rows of the place holder, are not looked at."""
        # Ranks write texts of different lengths: none may wait for another's pass.
        with sharding.gathered(self.model):
            made = self._steps.make(self.state.global_step)
            batches = self._with_old(self._split(made))
        self._tell(made)
        self._made(made)
        # What is spent so far is not training.
        self._spent = time.perf_counter() - self._begun
        return batches

    def _split(self, made: MadeStep) -> list[dict[str, Any]]:
        members = [(group.asked.ids, one) for group in made.groups for one in group.members]
        rows = [(prompt, one.rollout.ids) for prompt, one in members]
        advantage_B = made.advantages.value_PG.flatten()
        teaches_B, steered_B = made.teaches_PG.flatten(), made.steered_PG.flatten()
        wants_sampler = self._objective.importance.mode is not ImportanceMode.NONE
        wants_sampler |= self._objective.ratio is Ratio.BEHAVIOR
        batches = []
        for numbers in micro_batches([len(p) + len(g) for p, g in rows], self.args.steps_per_generation):
            batch = padded([rows[number] for number in numbers])
            inputs: dict[str, Any] = {
                "ids_BT": batch.ids_BT,
                "generated_BT": batch.generated_BT,
                "mask_BT": batch.generated_BT & teaches_B[numbers, None],
                "advantage_B": advantage_B[numbers],
                "steered_B": steered_B[numbers],
            }
            if wants_sampler:
                sampler_BT = torch.zeros(batch.ids_BT.shape)
                for place, number in enumerate(numbers):
                    logprobs = members[number][1].rollout.logprobs
                    if logprobs:
                        sampler_BT[place, batch.generated_BT[place]] = torch.tensor(logprobs)
                inputs["sampler_BT"] = sampler_BT
            batches.append({name: part.to(self.accelerator.device) for name, part in inputs.items()})
        return batches

    def _with_old(self, batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Adds the unsteered policy's log-probabilities where they are needed, and the tokens of the whole step.

        With one update the policy that learns is the one that is asked, and a second forward pass would say the same.
        """
        for inputs in batches:
            entry = self._objective.min_token_prob > 0 and bool(inputs["steered_B"].any())
            if self.num_iterations == 1 and not entry:
                continue
            with torch.no_grad():
                old_BT = self._logprobs(self.model, inputs)[0]
            if entry:
                keep_BT = entry_mask(old_BT, inputs["steered_B"], self._objective.min_token_prob)
                inputs["mask_BT"] = inputs["mask_BT"] & keep_BT
            if self.num_iterations > 1:
                inputs["old_BT"] = old_BT
        batch = GlobalBatch.of([inputs["mask_BT"] for inputs in batches])
        for inputs in batches:
            inputs["batch"] = batch
        self.count_tokens(batch.tokens)
        return batches

    # -- the loss --------------------------------------------------------------------------------------------------

    def _logprobs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probability of each generated token, with its graph, and the policy's entropy there; 0 elsewhere."""
        labels_BT = inputs["ids_BT"].masked_fill(~inputs["generated_BT"], -100)
        with self.accelerator.autocast():
            # Padding is on the right, where no token sees it: there is nothing to mask.
            output = model(input_ids=inputs["ids_BT"], labels=labels_BT, fused_lm_head=True)
        return tuple(torch.nn.functional.pad(part, (1, 0)) for part in (output.log_probs, output.entropy))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        objective = self._objective
        logprob_BT, entropy_BT = self._logprobs(model, inputs)
        mask_BT, steered_B, old_BT = inputs["mask_BT"], inputs["steered_B"], inputs.get("old_BT")
        normal_BT = mask_BT & ~steered_B[:, None]
        weight_BT = None
        if objective.importance.mode is not ImportanceMode.NONE:
            policy_BT = logprob_BT.detach() if old_BT is None else old_BT
            weight_BT = importance_weights(policy_BT, inputs["sampler_BT"], mask_BT, steered_B, objective.importance)
            self.add_metric("importance_weight", weight_BT[normal_BT].sum(), normal_BT.sum())
        rollouts = Rollouts(inputs["advantage_B"], mask_BT, steered_B, old_BT, inputs.get("sampler_BT"), weight_BT)
        term = dapo_loss(logprob_BT, rollouts, inputs["batch"], clip=objective.clip, ratio=objective.ratio)
        entropy, normal = entropy_BT.detach()[normal_BT].double().sum(), normal_BT.sum()
        self._entropy.append(torch.stack([entropy, normal.double()]))
        self.add_metric("entropy", entropy, normal)
        self.add_metric("clip_ratio_low", term.clipped_low, normal)
        self.add_metric("clip_ratio_high", term.clipped_high, normal)
        self.add_metric("clip_ratio_dual", term.clipped_dual, normal)
        self.add_metric("steered_clip_ratio", term.steered_clipped, term.steered_tokens)
        if objective.ratio is Ratio.BEHAVIOR:
            self.add_metric("steered_gap", term.steered_gap, term.steered_tokens)
        return term.loss

    # -- what is told ----------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Ours; the trainer's own numbers of generation and reward were never filled."""
        self._metrics["train"].clear()
        super().log(logs, start_time)

    def _tell(self, made: MadeStep) -> None:
        """Metrics and alarms of a step's rollouts; collective."""
        sums = step_sums(made, self._steps.prompts)
        for name, (total, weight) in sums.items():
            self.add_metric(name, total, weight)
        rare = self._steps.rare
        if rare is not None and rare.strength:
            self.add_metric("steering_strength", rare.strength)
        signs = Signs(*self._added(astuple(signs_of(made, failed_count(made.scored)))))
        self._looping = signs.looping / max(1, signs.normal)
        self.alarms.seen("zero_reward_std", signs.flat == signs.groups)
        self.alarms.seen("all_truncated", bool(signs.normal) and signs.truncated == signs.normal)
        if rare is not None and signs.negatives:
            self.alarms.seen("dead_signal", signs.verified == 0, f"strength {rare.strength:g}")
        self.alarms.seen("grader_failures", signs.ungraded > self._failure_share * signs.rollouts, failures(sums))

    def before_steps(self) -> None:
        """What the recipe does before the first step."""
        self._before()

    def after_step(self, step: int) -> None:
        """Seconds of training, the alarm of collapse, and what the recipe does after a step."""
        self.add_metric("seconds_training", time.perf_counter() - self._begun - self._spent)
        entropy, tokens = self._added(torch.stack(self._entropy).sum(0).tolist())
        self._entropy = []
        mean = entropy / tokens if tokens else COLLAPSED
        detail = f"{self._looping:.0%} of the normal rollouts loop, entropy {mean:.3g} nats"
        self.alarms.seen("collapse", self._looping > 0.5 or mean < COLLAPSED, detail)
        self._after(step)

    def _added(self, numbers: Sequence[float]) -> list[float]:
        """Sums over ranks."""
        return added(torch.tensor(list(numbers), dtype=torch.float64, device=self.accelerator.device)).tolist()

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Draws, rare negatives, and rollouts that further updates will learn from, of every rank."""
        held: dict[str, Tensor] = {}
        tokens = 0
        if self._step % (self.args.steps_per_generation * self.num_iterations):
            assert self._buffered_inputs is not None, "rollouts were made"
            for number, inputs in enumerate(self._buffered_inputs):
                tokens = inputs["batch"].tokens
                held |= {f"{number}.{name}": part.cpu() for name, part in inputs.items() if isinstance(part, Tensor)}
        ranks = gathered((held, self._steps.state()))
        tensors = {f"{rank}.{name}": part for rank, (parts, _) in enumerate(ranks) for name, part in parts.items()}
        ours = {"tokens": tokens, "looping": self._looping}
        return tensors, {"rl": ours, "steps": [steps for _, steps in ranks], "own": self._own_state()}

    def load_extra_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Puts back what :meth:`extra_state` gave."""
        # The trainer counts micro-batches from 0 in every process.
        self._step = self.state.global_step * self.args.steps_per_generation
        rank, ranks = self.args.process_index, len(state["steps"])
        self._steps.load_state(state["steps"][rank])
        self._load_own_state(state["own"])
        self._looping = state["rl"]["looping"]
        if not tensors:
            return
        batch = GlobalBatch(state["rl"]["tokens"], ranks)
        self._buffered_inputs = [{"batch": batch} for _ in range(self.args.steps_per_generation)]
        for name, part in tensors.items():
            of_rank, number, field_name = name.split(".")
            if int(of_rank) == rank:
                self._buffered_inputs[int(number)][field_name] = part.to(self.accelerator.device)


def _ticks(prompts: int, updates: int, iterations: int) -> Dataset:
    """In the place of a data set: one pass over it is the whole run. Which prompts are drawn the steps decide."""
    return Dataset.from_dict({"prompt": [""] * (prompts * -(-updates // iterations))})


def _unused(**_: Any) -> list[float]:
    raise AssertionError("rollouts are scored by the steps")
