"""TRL's own trainer on the same experiment: ``trl_driver.py VERB EXPERIMENT RESULT``."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from google.protobuf import json_format
from measured import Clock
from qscope.embedded import model_path
from qscope.posttraining.accuracy import check_of
from qscope.posttraining.examples import read_examples, read_prompts
from qscope.posttraining.sft_batches import Row
from qscope.posttraining.tuning import trainer_arguments
from qscope.text.loops import repeated_ngrams
from qscope.v1.experiment_pb2 import Experiment
from transformers import AutoModelForCausalLM, AutoTokenizer

CONTEXT = 512


def main(verb: str, experiment: str, result: str) -> None:
    """Trains and writes the result."""
    os.environ["CI"] = "1"  # TRL sends nothing then.
    frozen = json_format.Parse(Path(experiment).read_text(), Experiment())
    torch.set_num_threads(frozen.compute.threads or os.cpu_count() or 1)
    folder = str(model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        train = {"sft": _sft, "rl": _rl}[verb]
        tokens = train(frozen, model, tokenizer, clock, scratch)
    clock.write(result, tokens=tokens)


def _arguments(verb: str, task: Any, scratch: str, *, batch: int, accumulate: int, seed: int) -> dict[str, Any]:
    return trainer_arguments(
        verb,
        task.optimizer,
        task.trainable,
        device=torch.device("cpu"),
        autocast=False,
        steps=task.steps,
        batch=batch,
        accumulate=accumulate,
        log_every=task.metrics.every_steps,
        seed=seed,
        folder=scratch,
    )


def _sft(frozen: Experiment, model: Any, tokenizer: Any, clock: Clock, scratch: str) -> int:
    from trl import SFTConfig, SFTTrainer

    task = frozen.sft
    found = read_examples(task.data, tokenizer, task.format, context=task.context, at="sft.data")
    rows = [Row.of(example, -1) for example in found.items]
    data = Dataset.from_dict(
        {
            "input_ids": [list(r.ids) for r in rows],
            "labels": [list(r.labels) for r in rows],
        }
    )
    arguments = _arguments(
        "sft",
        task,
        scratch,
        batch=task.micro_batch_rows,
        accumulate=task.accumulate,
        seed=0,
    )
    config = SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)
    SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer).train()
    per_row = sum(len(row.ids) for row in rows) / len(rows)
    return round(per_row * task.steps * task.micro_batch_rows * task.accumulate)


def _rl(frozen: Experiment, model: Any, tokenizer: Any, clock: Clock, scratch: str) -> int:
    from trl import GRPOConfig, GRPOTrainer

    task = frozen.rl
    found = read_prompts(task.prompts, tokenizer, task.format, context=CONTEXT, at="rl.prompts")
    data = Dataset.from_dict(
        {
            "prompt": [one.text for one in found.items],
            "answer": [o.answer for o in found.items],
        }
    )
    right = check_of("last-number")
    counted = 0

    def reward(
        completions: list[str],
        completion_ids: list[list[int]],
        answer: list[str],
        **_: Any,
    ) -> list[float]:
        nonlocal counted
        counted += sum(map(len, completion_ids))
        with clock.part("grading"):
            return [
                float(right(text, wanted)) - repeated_ngrams(ids, 3)
                for text, ids, wanted in zip(completions, completion_ids, answer, strict=True)
            ]

    rows = task.prompts_per_step * task.group_size
    batch = min(task.micro_batch_rows, rows)
    arguments = _arguments("rl", task, scratch, batch=batch, accumulate=rows // batch, seed=0)
    config = GRPOConfig(
        **arguments,
        num_generations=task.group_size,
        max_completion_length=task.sampling.max_tokens,
        temperature=task.sampling.temperature,
        top_p=task.sampling.top_p,
        top_k=task.sampling.top_k,
        loss_type="dapo",
        epsilon=task.epsilon_low,
        epsilon_high=task.epsilon_high,
        beta=0.0,
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
    )
    generate = trainer._generate_single_turn

    def timed(*args: Any, **kwargs: Any) -> Any:
        with clock.part("rollouts"):
            return generate(*args, **kwargs)

    trainer._generate_single_turn = timed
    trainer.train()
    return counted


if __name__ == "__main__":
    main(*sys.argv[1:])
