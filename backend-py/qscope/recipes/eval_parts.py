"""What the recipe and the plan of ``qscope eval`` do alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qscope.data.files import classify
from qscope.errors import UserError
from qscope.posttraining.evaluating import Places
from qscope.posttraining.examples import Prompts, read_prompts
from qscope.posttraining.saved_responses import Saved, read_saved
from qscope.runs import find_run, run_folders
from qscope.v1.eval_pb2 import EvalResponses

AT = "eval_responses"
#: Responses among the artifacts of a run of this verb, and of ``qscope rl``.
RESPONSES, ROLLOUTS = "responses.jsonl", "rollouts.jsonl"
#: Of a model whose config does not say how many tokens it reads.
_NO_LIMIT = 1 << 30


def reads_saved(task: EvalResponses) -> bool:
    """Whether responses are read rather than written."""
    return bool(task.responses.source)


def places_of(task: EvalResponses) -> Places:
    """Experiment fields of what is measured, for errors."""
    return Places(AT, f"{AT}.{'responses' if reads_saved(task) else 'prompts'}")


def prompts_for(task: EvalResponses, tokenizer: Any, context_length: int) -> Prompts:
    """The prompts of an experiment; those that leave no room for an answer in the model's context are left out.

    Args:
        task: the experiment.
        tokenizer: of the model.
        context_length: tokens the model reads; 0 where that is not known.

    Raises:
        UserError: no prompt leaves room (CONTEXT_EXCEEDED), or see :func:`~qscope.posttraining.examples.read_prompts`.
    """
    room = context_length - task.sampling.max_tokens if context_length else _NO_LIMIT
    if room < 1:
        raise UserError(
            f"{task.sampling.max_tokens:,} generated tokens leave no room for a prompt in the model's "
            f"{context_length:,} positions.",
            remedy=f"Generate fewer than {context_length:,} tokens.",
            reason="CONTEXT_EXCEEDED",
            field=f"{AT}.sampling.max_tokens",
        )
    return read_prompts(task.prompts, tokenizer, task.format, context=room, at=f"{AT}.prompts")


def saved_of(task: EvalResponses, runs: Path, pin: Callable[[Callable[[], Path]], Path] = lambda find: find()) -> Saved:
    """The saved responses of an experiment.

    Args:
        task: the experiment; its source becomes the file it means.
        runs: folder of the runs.
        pin: keeps what the name of a run means, see :func:`qscope.recipes.shared.pinned`.

    Raises:
        UserError: see :func:`~qscope.posttraining.saved_responses.read_saved`; a run without any (RESPONSES_NOT_FOUND).
    """
    at, name = f"{AT}.responses", task.responses.source
    path = Path(name).expanduser()
    if path.is_dir():
        task.responses.source = str(_responses_in(path) or path)
    elif not (path.exists() or "/" in name or "*" in name or classify(path)):
        task.responses.source = str(pin(lambda: _responses_of_run(name, runs, f"{at}.source")))
    return read_saved(task.responses, at=at)


def _responses_of_run(name: str, runs: Path, field: str) -> Path:
    # The newest run of all is the one that asks; the newest with responses is meant.
    folders = run_folders(runs) if name == "latest" else [find_run(runs, name)]
    for folder in folders:
        if found := _responses_in(folder.path):
            return found
    raise UserError(
        f"{'No run' if name == 'latest' else f'The run {name}'} in {runs} {'has' if name == 'latest' else 'holds no'} "
        "responses.",
        remedy="Name a file of responses, or a run of qscope eval with prompts.",
        reason="RESPONSES_NOT_FOUND",
        field=field,
    )


def _responses_in(folder: Path) -> Path | None:
    """The responses of a run's folder, if it is one."""
    places = (folder / "artifacts" / name for name in (RESPONSES, ROLLOUTS))
    return next((place for place in places if place.is_file() and place.stat().st_size), None)
