"""Small recipes that behave well and badly; the experiment's model says which."""

from __future__ import annotations

import os
import signal
import time

from qscope.errors import UserError
from qscope.runs import RunContext


def run(context: RunContext) -> None:
    globals()["_" + context.experiment.model.replace("-", "_")](context)


def _counting(context: RunContext) -> None:
    """A random walk that resumes bit for bit: `tokens` steps of `batch_tokens` milliseconds."""
    import torch
    from safetensors.torch import save_file

    task = context.experiment.train_sae
    generator = torch.Generator().manual_seed(context.seed_for("walk"))
    step, walk = 0, torch.zeros(8)
    if checkpoint := context.checkpoints.load_newest():
        step, walk = checkpoint.step, checkpoint.tensors["walk"]
        generator.set_state(checkpoint.tensors["generator"])
    context.info(f"from step {step}")

    def save() -> None:
        context.checkpoints.save(step, {"walk": walk, "generator": generator.get_state()}, {})

    while step < task.tokens:
        if context.stop_requested:
            save()
            context.stop(step)
        walk = walk * 0.9 + torch.randn(8, generator=generator)
        step += 1
        context.metrics(step, {-1: {"norm": walk.norm().item()}})
        if step % 5 == 0:
            save()
        time.sleep(task.batch_tokens / 1000)
    save_file({"walk": walk}, context.artifacts / "walk.safetensors")
    context.artifact("artifacts/walk.safetensors", "walk")


def _waiting(context: RunContext) -> None:
    """Says how far it is until it is told to stop."""
    step = 0
    while not context.stop_requested:
        step += 1
        context.metrics(step, {-1: {"step": step}})
        time.sleep(0.02)
    context.stop(step)


def _deaf(context: RunContext) -> None:
    """Never asks whether it should stop."""
    context.info("deaf")
    while True:
        time.sleep(60)


def _stubborn(context: RunContext) -> None:
    """Takes no SIGTERM at all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    _deaf(context)


def _forking(context: RunContext) -> None:
    """Has a child that outlives it, as a data loader may."""
    child = os.fork()
    if child == 0:
        time.sleep(300)
        os._exit(0)
    context.info(f"child {child}")
    _waiting(context)


def _wrong_layer(context: RunContext) -> None:
    raise UserError("There is no layer 99.", remedy="Use 0 to 3.", reason="NO_LAYER", field="train_sae.layers[2]")


def _no_text(context: RunContext) -> None:
    raise UserError("There is no text.", remedy="Give some.", reason="NO_TEXT")


def _bug(context: RunContext) -> None:
    print("about to divide", flush=True)
    raise ZeroDivisionError("by nothing")


def _memory(context: RunContext) -> None:
    import torch

    torch.empty(2**60)


def _done(context: RunContext) -> None:
    import torch

    context.metrics(1, {-1: {"threads": torch.get_num_threads()}})


def _ranks(context: RunContext) -> None:
    """Ranks that add their random walks; the model's revision may say which rank does what at step 3, as "1 bug"."""
    import torch
    import torch.distributed as dist

    task, ranks = context.experiment.train_sae, context.ranks
    context.metrics(0, {-1: {"threads": torch.get_num_threads(), "count": ranks.first(lambda: ranks.count)}})
    generator = torch.Generator().manual_seed(context.seed_for(f"walk {ranks.rank}"))
    step, walk = 0, torch.zeros(8)
    if checkpoint := context.checkpoints.load_newest():
        step, walk = checkpoint.step, checkpoint.tensors["walk"]
        for _ in range(step):
            torch.randn(8, generator=generator)
    context.info(f"rank {ranks.rank} from step {step}")
    who, _, what = context.experiment.model_options.revision.partition(" ")
    while step < task.tokens:
        if context.stop_requested:
            steps = [torch.zeros((), dtype=torch.int64) for _ in range(ranks.count)]
            dist.all_gather(steps, torch.tensor(step))
            context.checkpoints.save(step, {"walk": walk}, {"steps": [int(each) for each in steps]})
            context.stop(step)
        if step == 3 and who in (str(ranks.rank), "all"):
            globals()["_" + what.replace("-", "_")](context)
        noise = torch.randn(8, generator=generator)
        dist.all_reduce(noise)
        walk = walk * 0.9 + noise
        step += 1
        context.metrics(step, {-1: {"norm": walk.norm().item()}})
        time.sleep(task.batch_tokens / 1000)
    (context.artifacts / "walk.txt").write_text(" ".join(map(str, walk.tolist())))
    context.artifact("artifacts/walk.txt", "walk")


def _leave_without_a_word(context: RunContext) -> None:
    os._exit(0)
