"""What an experiment would run, the memory and time it needs, and whether it fits; without side effects."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from qscope.errors import UserError
from qscope.models import ModelShape, available_memory, choose_device, describe_model, select_layers
from qscope.recipes.eval_parts import reads_saved
from qscope.recipes.plan_classify import plan_apply, plan_classify
from qscope.recipes.plan_eval import AnswerPlan, plan_answers, plan_saved
from qscope.recipes.plan_features import FEATURE_TASKS, plan_features
from qscope.recipes.plan_ranks import add_ranks, refuse_processes
from qscope.recipes.plan_redundancy import plan_redundancy
from qscope.recipes.plan_rl import plan_rl
from qscope.recipes.plan_sft import plan_sft
from qscope.recipes.plan_synthesis import plan_synthesis
from qscope.recipes.plan_words import bytes_text as _size
from qscope.recipes.plan_words import ranges as _ranges
from qscope.recipes.plan_words import text_fact as _text
from qscope.sae.activations import buffer_tokens
from qscope.sae.evaluation import LOGIT_COPIES, tokens_at_once
from qscope.sae.settings import (
    aux_features_per_token,
    dead_after_tokens,
    feature_count,
    peak_learning_rate,
    step_count,
)
from qscope.steering.capability import LOGITS_AT_ONCE, TOKENS_AT_ONCE
from qscope.v1 import experiment_pb2, run_pb2, sae_pb2, steer_pb2

FLOAT32 = 4
#: A sparse SAE step costs this many encoder products (see docs/performance.md for the measurement).
STEP_OVER_ENCODER = 1.6

#: Below this many steps a warning is due: Adam has hardly left its warm-up.
FEW_STEPS = 100


def plan(experiment: experiment_pb2.Experiment, runs_folder: str, *, timed: bool = True) -> run_pb2.Plan:
    """Plans a validated experiment.

    Args:
        experiment: what would run.
        runs_folder: where its run folder would be.
        timed: whether to measure the device for an estimate of the time.

    Raises:
        UserError: for what can be known to be impossible before anything runs (wrong layer, k above the width,
            missing model or text); its ``field`` names the place.
    """
    task, estimate = experiment.WhichOneof("task"), None
    answers: AnswerPlan | None = None
    refuse_processes(experiment)
    device = choose_device(experiment.compute.device)
    if task == "eval_responses" and reads_saved(experiment.eval_responses):
        return _plan_without_model(experiment, Path(runs_folder))
    shape = describe_model(experiment.model, experiment.model_options, device)
    if task == "train_sae":
        result = _plan_train_sae(experiment.train_sae, shape, device)
    elif task == "eval_sae":
        result = _plan_eval_sae(experiment.eval_sae, shape, device)
    elif task == "steer":
        result = _plan_steer(experiment.steer, shape)
    elif task in FEATURE_TASKS:
        estimate = plan_features(experiment, shape, device, Path(runs_folder))
        result = estimate.planned
    elif task == "bench_redundancy":
        estimate = plan_redundancy(experiment, shape, device, Path(runs_folder))
        result = estimate.planned
    elif task == "synthesize":
        estimate = plan_synthesis(experiment.synthesize, shape, Path(runs_folder))
        result = estimate.planned
    elif task == "sft":
        estimate = plan_sft(experiment, shape, device, Path(runs_folder))
        result = estimate.planned
    elif task == "rl":
        estimate = plan_rl(experiment, shape, device, Path(runs_folder))
        result = estimate.planned
    elif task == "eval_responses":
        answers = plan_answers(experiment, shape)
        result = answers.planned
    elif task == "classify":
        estimate = plan_classify(experiment.classify, shape, Path(runs_folder), experiment.seed)
        result = estimate.planned
    elif task == "apply_classifier":
        estimate = plan_apply(experiment.apply_classifier, shape, Path(runs_folder))
        result = estimate.planned
    else:
        raise UserError("The experiment has no task.", remedy="Add train_sae, eval_sae or steer.", reason="NO_TASK")
    result.facts.insert(0, run_pb2.PlanFact(name="model", value=_describe(experiment.model, shape)))
    result.facts.insert(1, run_pb2.PlanFact(name="device", value=_device_name(device)))
    add_ranks(result, experiment, device)
    result.memory_bytes = sum(item.bytes for item in result.memory)
    result.available_bytes = available_memory(device)
    result.fits = result.memory_bytes <= result.available_bytes
    result.disk_available_bytes = _free_disk(Path(runs_folder))
    if result.disk_bytes > result.disk_available_bytes:
        result.warnings.append(
            f"The run writes up to {_size(result.disk_bytes)}, the disk has {_size(result.disk_available_bytes)} left: "
            "lower train_sae.checkpoint.keep, name fewer formats, or use another --runs-dir."
        )
    if not result.fits:
        result.warnings.append(_how_to_fit(experiment, shape, result))
    if timed:
        speed = measure_device(device)
        if answers is not None:
            result.seconds = answers.seconds(shape, speed.products, speed.bytes)
        elif estimate is not None:
            result.seconds = estimate.products / speed.products
        else:
            result.seconds = _seconds(experiment, shape, speed)
        result.time_basis = (
            f"this device does {speed.products / 1e9:,.0f} GFLOP/s in matrix products and moves "
            f"{speed.bytes / 1e9:,.1f} GB/s (measured just now)"
        )
    return result


def _plan_without_model(experiment: experiment_pb2.Experiment, runs: Path) -> run_pb2.Plan:
    """The plan of a task that reads what a model has written; the model is a name for the record."""
    result = plan_saved(experiment.eval_responses, runs)
    result.facts.insert(0, run_pb2.PlanFact(name="model", value=f"{experiment.model} (not loaded)"))
    result.fits = True
    result.available_bytes = available_memory(torch.device("cpu"))
    result.disk_available_bytes = _free_disk(runs)
    return result


def refuse_if_too_large(planned: run_pb2.Plan) -> None:
    """Raises a :class:`UserError` when the plan says that memory or disk do not suffice."""
    if not planned.fits:
        raise UserError(
            f"The run needs {_size(planned.memory_bytes)} of memory, {_size(planned.available_bytes)} are there.",
            remedy=planned.warnings[-1],
            reason="OUT_OF_MEMORY_BY_PLAN",
        )


def _plan_train_sae(task: sae_pb2.TrainSae, shape: ModelShape, device: torch.device) -> run_pb2.Plan:
    layers = select_layers(task.layers, shape.n_layers, at="train_sae.layers")
    d_sae = feature_count(task.sae, shape.d_model)
    text = _text(task.text, at="train_sae.text")
    held, steps, batch = buffer_tokens(task.buffer, task.batch_tokens), step_count(task), task.batch_tokens
    weights = _weights(shape.d_model, d_sae)
    n, on_gpu = len(layers), device.type == "cuda"
    activation_bytes = shape.bytes_per_parameter
    items = [
        ("language model", shape.weight_bytes),
        ("language model, one pass", task.buffer.model_batch_tokens * shape.d_model * 24 * activation_bytes),
        (f"SAE weights, float32 ({n} layers)", n * weights * FLOAT32),
        ("Adam moments, float32", n * weights * 2 * FLOAT32),
        ("gradient of one layer, float32", weights * FLOAT32),
        (f"shuffle buffer ({held:,} tokens)", n * held * shape.d_model * activation_bytes),
        ("batch, codes and scores", batch * (n + 4) * shape.d_model * FLOAT32 + min(batch, 1024) * d_sae * 8),
    ]
    if on_gpu:
        items.insert(3, ("SAE weights, bfloat16 copy", n * weights * 2))

    state_bytes = n * weights * 3 * FLOAT32 + n * held * shape.d_model * activation_bytes
    export_bytes = n * weights * FLOAT32 * len(task.formats)
    planned = run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name="layers", value=f"{_ranges(layers)} of {shape.n_layers} ({n}, counted from 0)"),
            run_pb2.PlanFact(name="SAE", value=f"d_in {shape.d_model}, d_sae {d_sae:,}, k {task.sae.k}"),
            run_pb2.PlanFact(name="parameters", value=f"{n * weights:,} ({weights:,} per layer)"),
            run_pb2.PlanFact(name="text", value=text),
            run_pb2.PlanFact(name="tokens", value=f"{task.tokens:,} per layer"),
            run_pb2.PlanFact(name="steps", value=f"{steps:,} of {batch:,} tokens"),
            run_pb2.PlanFact(name="learning rate", value=f"{peak_learning_rate(task.optimizer, d_sae):.3g}"),
            run_pb2.PlanFact(name="AuxK", value=_aux(task, shape.d_model)),
        ],
        memory=[run_pb2.MemoryItem(name=name, bytes=int(size)) for name, size in items],
        disk_bytes=int((task.checkpoint.keep + 1) * state_bytes + export_bytes),
    )
    if steps < FEW_STEPS:
        planned.warnings.append(
            f"{steps} steps are few for an SAE: expect a large FVU. Raise train_sae.tokens or lower batch_tokens."
        )
    return planned


def _plan_eval_sae(task: sae_pb2.EvalSae, shape: ModelShape, device: torch.device) -> run_pb2.Plan:
    layers = select_layers(task.layers, shape.n_layers, at="eval_sae.layers")
    text = _text(task.text, at="eval_sae.text")
    at_once = max(task.text.context, tokens_at_once(task.model_batch_tokens, shape.vocab_size, device))
    return run_pb2.Plan(
        facts=[
            run_pb2.PlanFact(name="layers", value=f"{_ranges(layers)} of {shape.n_layers}"),
            run_pb2.PlanFact(name="text", value=text),
            run_pb2.PlanFact(name="tokens", value=f"{task.tokens:,}"),
            run_pb2.PlanFact(name="model passes", value=f"{_eval_passes(layers)}"),
        ],
        memory=[
            run_pb2.MemoryItem(name="language model", bytes=shape.weight_bytes),
            run_pb2.MemoryItem(name="logits of one pass", bytes=at_once * shape.vocab_size * FLOAT32 * LOGIT_COPIES),
        ],
    )


def _plan_steer(task: steer_pb2.Steer, shape: ModelShape) -> run_pb2.Plan:
    for number, edit in enumerate(task.steering.edits):
        if edit.layers:
            select_layers(edit.layers, shape.n_layers, at=f"steer.steering.edits[{number}].layers")
    layers = sorted({layer for edit in task.steering.edits for layer in edit.layers})
    prompts, from_text = _steer_prompts(task)
    length = task.sampling.max_tokens + (task.prompt_text.tokens if from_text else 0)
    arms = _steer_arms(task)
    texts = prompts * task.samples * arms
    named = _ranges(layers) if layers else "those of the files" if task.steering.edits else "none"
    where = "in every arm but prompt" if steer_pb2.STEERING_CONTROL_PROMPT in task.controls else "in every arm"
    tasks = "The time does not count the tasks: how long they are is known to the harness alone."
    return run_pb2.Plan(
        warnings=[tasks] if task.capability.tasks else [],
        facts=[
            run_pb2.PlanFact(name="layers", value=f"{named} of {shape.n_layers}"),
            run_pb2.PlanFact(name="edits", value=f"{len(task.steering.edits)}"),
            run_pb2.PlanFact(
                name="texts",
                value=f"{texts:,} ({prompts:,} prompts x {task.samples} samples x {arms} arms and strengths)",
            ),
            run_pb2.PlanFact(name="tokens", value=f"up to {texts * task.sampling.max_tokens:,} generated"),
            *(
                [run_pb2.PlanFact(name="tasks", value=f"{', '.join(task.capability.tasks)}, {where}")]
                if task.capability.tasks
                else []
            ),
            run_pb2.PlanFact(
                name="neutral text", value=f"{task.side_effects.tokens:,} tokens in each arm and strength"
            ),
        ],
        memory=[
            run_pb2.MemoryItem(name="language model", bytes=shape.weight_bytes),
            # Keys and values are at most as wide as the residual stream.
            run_pb2.MemoryItem(
                name="cache of one batch, at most",
                bytes=task.batch_rows * length * 2 * shape.n_layers * shape.d_model * shape.bytes_per_parameter,
            ),
            *_task_memory(task, shape),
            run_pb2.MemoryItem(name="logits of one step", bytes=4 * task.batch_rows * shape.vocab_size * FLOAT32),
        ],
    )


def _task_memory(task: steer_pb2.Steer, shape: ModelShape) -> list[run_pb2.MemoryItem]:
    """What requests of benchmark tasks need beside the prompts; their length is bounded by the batch, not by a plan."""
    if not task.capability.tasks:
        return []
    token_bytes = 2 * shape.n_layers * shape.d_model * shape.bytes_per_parameter
    return [
        run_pb2.MemoryItem(name="cache of one batch of tasks, at most", bytes=TOKENS_AT_ONCE * token_bytes),
        # As the model gives them, and as float32.
        run_pb2.MemoryItem(name="logits of one batch of tasks", bytes=2 * LOGITS_AT_ONCE * FLOAT32),
    ]


def _steer_prompts(task: steer_pb2.Steer) -> tuple[int, bool]:
    """Prompts of every arm, and whether they come from text."""
    given = len(task.prompts) + sum(len(paraphrase.prompts) for paraphrase in task.paraphrases)
    return given or task.prompt_text.prompts, not given


def _steer_arms(task: steer_pb2.Steer) -> int:
    """Arms and strengths: unsteered, zero and prompt once, the others at every strength."""
    once = {steer_pb2.STEERING_CONTROL_ZERO, steer_pb2.STEERING_CONTROL_PROMPT} & set(task.controls)
    return 1 + len(once) + max(1, len(task.sweep)) * (1 + len(task.controls) - len(once))


def _eval_passes(layers: list[int]) -> int:
    # One to capture, one clean; for every layer the reconstruction and zeros, each with and without filtered tokens.
    return 2 + 4 * len(layers)


def _seconds(experiment: experiment_pb2.Experiment, shape: ModelShape, speed: DeviceSpeed) -> float:
    if experiment.WhichOneof("task") == "eval_sae":
        task = experiment.eval_sae
        layers = select_layers(task.layers, shape.n_layers)
        # The spliced passes run the blocks above their layer only.
        skipped = 4 * sum((layer + 1) / shape.n_layers for layer in layers) * shape.active_block_parameters
        return task.tokens * 2 * (_eval_passes(layers) * shape.parameters - skipped) / speed.products
    if experiment.WhichOneof("task") == "steer":
        steer = experiment.steer
        texts = _steer_prompts(steer)[0] * steer.samples * _steer_arms(steer)
        # Decoding reads every weight once per step of a batch.
        steps = -(-texts // steer.batch_rows) * steer.sampling.max_tokens
        neutral = steer.side_effects.tokens * (1 + _steer_arms(steer)) * 2
        return steps * shape.weight_bytes / speed.bytes + neutral * 2 * shape.parameters / speed.products
    task = experiment.train_sae
    layers, d_sae = select_layers(task.layers, shape.n_layers), feature_count(task.sae, shape.d_model)
    share_of_model = (max(layers) + 1) / shape.n_layers
    model = 2 * shape.active_block_parameters * share_of_model / speed.products
    sae = STEP_OVER_ENCODER * 2 * shape.d_model * d_sae / speed.products
    update = 28 * _weights(shape.d_model, d_sae) / speed.bytes / task.batch_tokens
    return task.tokens * (model + len(layers) * (sae + update))


def _weights(d_in: int, d_sae: int) -> int:
    return 2 * d_in * d_sae + d_sae + d_in


@dataclass(frozen=True)
class DeviceSpeed:
    """Measured ceilings of a device: ``products`` in FLOP/s of a matrix product, ``bytes`` in bytes/s of a copy."""

    products: float
    bytes: float


def measure_device(device: torch.device) -> DeviceSpeed:
    """Times a matrix product and a copy on the device (about a quarter of a second)."""
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    rows, inner, columns = (8192, 2048, 16384) if on_gpu else (1024, 256, 2048)
    a = torch.randn(rows, inner, device=device, dtype=dtype)
    b = torch.randn(inner, columns, device=device, dtype=dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    source = torch.randn((256 if on_gpu else 32) << 18, device=device)
    target = torch.empty_like(source)
    product = _median_seconds(lambda: torch.mm(a, b, out=out), device)
    copy = _median_seconds(lambda: target.copy_(source), device)
    return DeviceSpeed(products=2 * rows * inner * columns / product, bytes=2 * source.numel() * 4 / copy)


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(7))


def _how_to_fit(experiment: experiment_pb2.Experiment, shape: ModelShape, planned: run_pb2.Plan) -> str:
    task = experiment.WhichOneof("task")
    if task == "diagnose_features":
        return (
            "Shorten the longest of diagnose_features.cases or use a smaller model: "
            "a backward pass needs what every block computed."
        )
    if task == "steer":
        return "Lower steer.batch_rows or steer.sampling.max_tokens, or use a smaller model."
    if task in FEATURE_TASKS:
        return f"Name fewer layers in {task}.layers, or lower {task}.model_batch_tokens."
    if task == "rl":
        return (
            "Lower rl.micro_batch_rows, rl.generation_rows or rl.sampling.max_tokens, set "
            "rl.trainable.gradient_checkpointing or method: lora, or share the model among processes with "
            "compute.sharding: fsdp2."
        )
    if task == "sft":
        return (
            "Lower sft.micro_batch_rows and raise sft.accumulate as much, set sft.trainable.gradient_checkpointing or "
            "method: lora, or share the model among processes with compute.sharding: fsdp2."
        )
    if task == "bench_redundancy":
        return (
            f"Name fewer layers in {task}.layers, lower {task}.model_batch_tokens or {task}.shard_items, "
            "or leave the largest model out of the panel."
        )
    if task == "synthesize":
        return "Lower synthesize.model_batch_tokens, name fewer layers, or let fewer texts be written side by side."
    if task == "eval_responses":
        return f"Lower {task}.batch_rows or {task}.sampling.max_tokens, or use a smaller model."
    if task != "train_sae":
        return "Lower eval_sae.model_batch_tokens."
    layers = select_layers(experiment.train_sae.layers, shape.n_layers)
    per_layer = sum(i.bytes for i in planned.memory if i.name.startswith(("SAE", "Adam", "shuffle"))) / len(layers)
    fixed = planned.memory_bytes - per_layer * len(layers)
    count = int((planned.available_bytes - fixed) // per_layer)
    if count >= 1:
        return (
            f"About {count} of the {len(layers)} layers fit at a time: name some, for example "
            f"--set train_sae.layers={[*layers[:count]]}, and run the others after them."
            if count <= 12
            else f"About {count} of the {len(layers)} layers fit at a time: train them in groups with train_sae.layers."
        )
    return "Not even one layer fits: lower train_sae.sae or train_sae.buffer.tokens, or use a larger device."


def _aux(task: sae_pb2.TrainSae, d_in: int) -> str:
    if task.aux_k.coefficient == 0:
        return "off"
    features = aux_features_per_token(task.aux_k, d_in)
    dead_after = dead_after_tokens(task.aux_k, task.tokens, task.batch_tokens)
    return f"{task.aux_k.coefficient:g}, {features} features, dead after {dead_after:,} tokens"


def _describe(name: str, shape: ModelShape) -> str:
    size = f"{shape.n_layers} layers, d_model {shape.d_model}, {shape.parameters:,} parameters"
    return f"{name} ({shape.architecture}, {size})"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"


def _free_disk(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
