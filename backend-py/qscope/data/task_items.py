"""Items of the tasks of lm-evaluation-harness: the prompts that the harness itself would show a model.

Rows, templates and answered examples are the task's. An item's number is the harness' ``doc_id``, so that what it
writes with ``--log_samples`` fits. Generators of random numbers are seeded as its command line does by default, so that
examples and shuffled choices are those that a panel was scored on.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from qscope.data.harness import leaves_of, load_harness, open_manager, read_parts, set_shots, unreadable
from qscope.data.items import Benchmark, Item, refuse_empty
from qscope.data.records import Fault
from qscope.data.row_texts import refused_row
from qscope.errors import UserError

#: What `lm-eval run` seeds Python, NumPy and the choice of examples with, unless told otherwise.
_PYTHON_SEED, _NUMPY_SEED, _SHOTS_SEED = 0, 1234, 1234
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def read_task(
    name: str,
    task: str,
    *,
    shots: int = 0,
    folder: str = "",
    limit: int = 0,
    refuse_faults: bool = False,
    managers: dict[str, Any] | None = None,
    at: str = "",
) -> list[Benchmark]:
    """The benchmarks of a task: one, or one for each task of a group or a tag.

    What a model sees of an item is what the requests of the item begin with alike: of a question with choices the
    question without any, of a text with a gap the text up to the gap. Where the harness asks for the likelihood of a
    continuation it moves spaces at the end of the prompt to the continuation; so does this.

    Args:
        name: name of the benchmark in tables; empty takes the task's. The tasks of a group have their own.
        task: of the harness: a task, a group or a tag.
        shots: answered examples before each item; a task that fixes none keeps none.
        folder: task files of one's own; empty for none.
        limit: items of a task at most, the first ones; 0 takes all.
        refuse_faults: whether an item that cannot be used is an error; otherwise it is left out and listed.
        managers: the harness' indices by folder: kept here for the next call, as it takes seconds to make one.
        at: experiment field of the benchmark, for errors.

    Raises:
        UserError: the package is not installed (PACKAGE_MISSING); the folder does not exist (FOLDER_MISSING); the task
            is unknown (TASK_UNKNOWN), cannot be read (TASK_UNREADABLE), or shows pictures or sound (TASK_UNSUPPORTED);
            no item is left (BENCHMARK_EMPTY), or one cannot be used (ROW_BAD).
    """
    version = load_harness(f"{at}.task", otherwise="name the rows in 'source'").__version__
    managers = {} if managers is None else managers
    if folder not in managers:
        managers[folder] = open_manager(folder, at=f"{at}.folder")
    with _seeded():
        parts = read_parts(managers[folder], task, at=f"{at}.task", folder_at=f"{at}.folder")
        leaves = list(leaves_of(parts))
        single = len(leaves) == 1 and leaves[0].task_name == task
        found = []
        for leaf in leaves:
            own = _NOT_IN_NAMES.sub("_", leaf.task_name).lstrip("._-")[:64]
            benchmark = Benchmark(name if name and single else own, [], "", task=leaf.task_name)
            _read(benchmark, leaf, version, shots, limit, refuse_faults, at)
            found.append(benchmark)
    return found


def _read(found: Benchmark, task: Any, version: str, shots: int, limit: int, refuse_faults: bool, at: str) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise UserError(
            f"Task '{found.task}' shows images or sound, which is not done here.",
            remedy="Leave the task out.",
            reason="TASK_UNSUPPORTED",
            field=f"{at}.task",
        )
    set_shots(task, shots)
    task.set_fewshot_seed(seed=_SHOTS_SEED)
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    count = int(task.get_config("num_fewshot") or 0)
    found.template = f"of lm-eval {version}, task {found.task}, split {split}, {count} shots"
    try:
        docs = task.doc_iterator(rank=0, limit=limit or None, world_size=1)
    except Exception as error:  # whatever a function of the task raises
        raise unreadable(f"Task '{found.task}'", error, f"{at}.task") from error
    # In the order of the harness, from the first on: the examples of an item hang on those drawn before.
    for number, doc in docs:
        place = f"{found.task} {split}: item {number}"
        try:
            prompt = _prompt(task, doc, number, count)
        except Exception as error:  # whatever a template or a function of the task raises
            said = " ".join(str(error).split()) or type(error).__name__
            fault = Fault(place, f"the task cannot pose it ({said[:200]})")
        else:
            fault = None if prompt.strip() else Fault(place, "its prompt is empty")
        if fault is None:
            found.items.append(Item(place, prompt, number))
        elif refuse_faults:
            raise refused_row(fault, at=f"{at}.task")
        else:
            found.faults.append(fault)
    refuse_empty(found, found.task, at=f"{at}.task")


def _prompt(task: Any, doc: Any, number: int, shots: int) -> str:
    """What the requests of an item begin with alike, as ``Task.build_all_requests`` makes them."""
    context = task.fewshot_context(
        doc,
        num_fewshot=shots,
        system_instruction=None,
        apply_chat_template=False,
        fewshot_as_multiturn=False,
        chat_template=None,
        gen_prefix=task.doc_to_prefix(doc),
    )
    requests = task.construct_requests(
        doc=doc,
        ctx=context,
        metadata=(task.config["task"], number, 1),
        apply_chat_template=False,
        chat_template=None,
    )
    requests = requests if isinstance(requests, list) else [requests]
    # Some metrics also ask how likely a choice is after nothing at all.
    contexts = [request.args[0] for request in requests if request.args[0]]
    begin = os.path.commonprefix(contexts)  # noqa: RUF071  # by characters is what is meant
    return begin.rstrip() if requests[0].request_type == "loglikelihood" else begin


@contextmanager
def _seeded() -> Iterator[None]:
    """The process's generators as the harness has them when it reads tasks; as they were, afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(_PYTHON_SEED)
    np.random.seed(_NUMPY_SEED)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
