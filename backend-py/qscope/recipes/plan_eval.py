"""The plan of ``qscope eval``: rows are read and checked, the model does not run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qscope.models import ModelShape, load_tokenizer
from qscope.posttraining.evaluating import refuse_unmeasurable
from qscope.posttraining.examples import samples
from qscope.recipes.eval_parts import places_of, prompts_for, saved_of
from qscope.text.loops import MIN_TOKENS
from qscope.v1 import run_pb2
from qscope.v1.eval_pb2 import RESPONSE_MEASURE_REPEAT, EvalResponses, ResponseMeasure
from qscope.v1.experiment_pb2 import Experiment

_FLOAT32 = 4
#: Bytes of a generated token in responses.jsonl: its id, and its text.
_BYTES_OF_TOKEN = 14


@dataclass(frozen=True)
class AnswerPlan:
    """A plan, and what decides its time.

    Attributes:
        planned: the plan, without the facts every task shares.
        steps: passes of a whole batch: each reads all weights.
        tokens: generated at most.
    """

    planned: run_pb2.Plan
    steps: int
    tokens: int

    def seconds(self, shape: ModelShape, products: float, moved: float) -> float:
        """Seconds the writing takes where no response ends before its limit.

        Args:
            shape: of the model.
            products, moved: FLOP and bytes of the device in a second.
        """
        return self.steps * shape.weight_bytes / moved + self.tokens * 2 * shape.parameters / products


def plan_saved(task: EvalResponses, runs: Path) -> run_pb2.Plan:
    """Plans the reading of saved responses; all of them are read, so that columns are checked before anything starts.

    Args:
        task: what would run.
        runs: folder of the runs.

    Raises:
        UserError: see :func:`~qscope.recipes.eval_parts.saved_of` and
            :func:`~qscope.posttraining.evaluating.refuse_unmeasurable`.
    """
    mine = EvalResponses()
    mine.CopyFrom(task)
    saved = saved_of(mine, runs)
    responses = [one.response for one in saved.answered]
    languages, answers = [one.language for one in responses], [one.answer for one in responses]
    refuse_unmeasurable(mine, languages, answers, places_of(mine))
    columns = ", ".join(f"{part}: {column}" for part, column in saved.columns.items())
    left_out = f", {len(saved.faults):,} rows left out" if saved.faults else ""
    return run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name="measures", value=_measures(task)),
            run_pb2.PlanFact(name="responses", value=f"{len(responses):,} of {mine.responses.source}{left_out}"),
            run_pb2.PlanFact(name="columns", value=columns),
        ],
        disk_bytes=1 << 20,
    )


def plan_answers(experiment: Experiment, shape: ModelShape) -> AnswerPlan:
    """Plans the writing of responses; the prompts are read and tokenised.

    Args:
        experiment: what would run.
        shape: of the model.

    Raises:
        UserError: see :func:`~qscope.recipes.eval_parts.prompts_for` and
            :func:`~qscope.posttraining.evaluating.refuse_unmeasurable`.
    """
    task = experiment.eval_responses
    tokenizer = load_tokenizer(experiment.model, experiment.model_options)
    prompts = prompts_for(task, tokenizer, shape.context_length)
    languages, answers = [one.language for one in prompts.items], [one.answer for one in prompts.items]
    refuse_unmeasurable(task, languages, answers, places_of(task))
    longest = max(len(one.ids) for one in prompts.items) + task.sampling.max_tokens
    count = len(prompts.items) * task.samples
    rows = min(task.batch_rows, count)
    tokens = count * task.sampling.max_tokens
    planned = run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name="measures", value=_measures(task)),
            run_pb2.PlanFact(name="prompts", value=f"{prompts.summary()} ({prompts.template})"),
            run_pb2.PlanFact(name="responses", value=f"{count:,} ({task.samples} to each), {rows} side by side"),
            run_pb2.PlanFact(name="tokens", value=f"up to {tokens:,} generated"),
        ],
        memory=[
            run_pb2.MemoryItem(name="language model", bytes=shape.weight_bytes),
            # Keys and values are at most as wide as the residual stream.
            run_pb2.MemoryItem(
                name="cache of one batch, at most",
                bytes=rows * longest * 2 * shape.n_layers * shape.d_model * shape.bytes_per_parameter,
            ),
            run_pb2.MemoryItem(name="logits of one step", bytes=4 * rows * shape.vocab_size * _FLOAT32),
        ],
        disk_bytes=tokens * _BYTES_OF_TOKEN + count * 256 + (1 << 20),
        samples=samples(prompts.items, tokenizer),
    )
    if RESPONSE_MEASURE_REPEAT in task.measures and task.sampling.max_tokens < MIN_TOKENS:
        planned.warnings.append(
            f"No response of {task.sampling.max_tokens} tokens can be endless: a loop takes {MIN_TOKENS}. "
            f"Raise eval_responses.sampling.max_tokens."
        )
    return AnswerPlan(planned, -(-count // task.batch_rows) * task.sampling.max_tokens, tokens)


def _measures(task: EvalResponses) -> str:
    return ", ".join(ResponseMeasure.Name(one).removeprefix("RESPONSE_MEASURE_").lower() for one in task.measures)
