"""Tasks of lm-evaluation-harness under steering: what a change costs where a benchmark measures.

The harness poses, samples and scores; this file answers its requests with the steered model. A request's context counts
as prompt, its continuation as generated, so a spec applies where it would apply while decoding. A spec's ``abort_when``
ends a continuation that is being written; for the likelihood of a given one it means nothing and is passed over.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qscope.data.harness import leaves_of, load_harness, open_manager, read_parts, set_shots, unreadable
from qscope.errors import Stopped, UserError
from qscope.models import LoadedModel
from qscope.models.generation import Generation, TextStream, context_length
from qscope.models.hooks import ResidualEdits
from qscope.models.prompts import prompt_of_ids, special_ids
from qscope.steering.batch import SteeredBatch
from qscope.steering.resolve import ResolvedSpec
from qscope.steering.saes import Saes
from qscope.v1.generation_pb2 import Sampling
from qscope.v1.inference_pb2 import END_REASON_END_TOKEN
from qscope.v1.steer_pb2 import CapabilityTasks

#: Logits held at once, in values, and tokens whose keys and values are: how long requests are, no plan knows.
LOGITS_AT_ONCE, TOKENS_AT_ONCE = 1 << 26, 1 << 15
#: Longest answer of a task that names none.
_ANSWER_TOKENS = 256
#: Tokens of a request where the model does not say how many it can read, and of a window of a longer text.
_LONGEST = 4096
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")
_SETTINGS = {"until", "do_sample", "temperature", "top_p", "top_k", *_LENGTHS}


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task.

    Attributes:
        task, metric: their names in the harness; the metric with its filter unless that is "none".
        value: the metric; None where the harness gives no number.
        stderr: its standard error as the harness gives it; None where it gives none.
        n: examples.
        changed_positions: positions (tokens times layers) that the spec changed in the requests of the task, or of the
            group it was asked for with.
        cut_requests: requests among them that lost their beginning, as the model cannot read so much.
    """

    task: str
    metric: str
    value: float | None
    stderr: float | None
    n: int
    changed_positions: int
    cut_requests: int


@dataclass(frozen=True)
class FoundTasks:
    """Tasks read by the harness, with their data: every arm is measured on these very objects.

    Attributes:
        manager: the harness' task manager.
        by_name: what the harness made of each name asked for: a group, a task, or the tasks of a tag.
        version: of the harness.
    """

    manager: Any
    by_name: Mapping[str, Sequence[Any]]
    version: str

    def leaves(self) -> Iterator[tuple[int, Any]]:
        """Every single task, with the place in ``steer.capability.tasks`` of the name it came with."""
        for index, parts in enumerate(self.by_name.values()):
            for task in leaves_of(parts):
                yield index, task


@dataclass(frozen=True)
class GenerationSettings:
    """What a task asks of generation: stop texts, none of them empty, and how tokens are drawn."""

    until: tuple[str, ...]
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_tokens=self.max_tokens)


@dataclass(frozen=True)
class GivenAnswer:
    """What a model makes of an answer that is given to it.

    Attributes:
        logprob_T: log-probability of each of its tokens after those before, nats.
        greedy_T: whether greedy decoding would write it there.
    """

    logprob_T: tuple[float, ...]
    greedy_T: tuple[bool, ...]

    @property
    def logprob(self) -> float:
        """Log-probability of the whole answer, nats."""
        return math.fsum(self.logprob_T)


def _harness() -> Any:
    return load_harness("steer.capability", otherwise="leave steer.capability out")


def find_tasks(wanted: CapabilityTasks, *, seed: int) -> FoundTasks:
    """Reads every task with its data and poses its first request, so that what is wrong with it is known now.

    Args:
        wanted: names, folder and shots.
        seed: of what a task draws while it is read, and of its shots.

    Raises:
        UserError: the folder does not exist (FOLDER_MISSING); a task is unknown (TASK_UNKNOWN), cannot be read
            (TASK_UNREADABLE), or asks for what is not done here (TASK_UNSUPPORTED).
    """
    version = _harness().__version__
    # Tasks may shuffle with generators that are the whole process's.
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    folder_at = "steer.capability.folder"
    manager, by_name = open_manager(wanted.folder, at=folder_at), {}
    for index, name in enumerate(wanted.tasks):
        at = f"steer.capability.tasks[{index}]"
        by_name[name] = read_parts(manager, name, at=at, folder_at=folder_at)
        try:
            for task in leaves_of(by_name[name]):
                _check(task, wanted.shots, seed, at)
        except UserError:
            raise
        except Exception as error:
            raise unreadable(f"Task '{name}'", error, at) from error
    return FoundTasks(manager, by_name, version)


def _check(task: Any, shots: int, seed: int, at: str) -> None:
    """Refuses what cannot be measured here, and poses the first request as the harness will."""
    why = ""
    if getattr(task, "UNSAFE_CODE", False):
        why = "runs code that the model writes"
    elif getattr(task, "MULTIMODAL", False):
        why = "shows images or sound"
    if why:
        raise _unsupported(f"Task '{task.task_name}' {why}, which is not done here.", at)
    if task.get_config("output_type") == "generate_until":
        generation_settings(task.get_config("generation_kwargs") or {}, at=at)
    set_shots(task, shots)
    task.set_fewshot_seed(seed=seed % (1 << 31))
    task.build_all_requests(limit=1)


def _unsupported(message: str, at: str) -> UserError:
    return UserError(message, remedy="Leave the task out.", reason="TASK_UNSUPPORTED", field=at)


def limit_of(loaded: LoadedModel) -> int:
    """Tokens of one request at most, answer included: what the model was made for."""
    return context_length(loaded) or _LONGEST


def refuse_without_room(loaded: LoadedModel, found: FoundTasks) -> None:
    """Refuses tasks whose answers alone fill the model's context.

    Raises:
        UserError: CONTEXT_EXCEEDED.
    """
    for index, task in found.leaves():
        if task.get_config("output_type") == "generate_until":
            settings = generation_settings(task.get_config("generation_kwargs") or {})
            _room(limit_of(loaded), settings.max_tokens, f"steer.capability.tasks[{index}]")


def _room(limit: int, max_tokens: int, at: str) -> int:
    """Tokens left for a context, at least one."""
    if max_tokens >= limit:
        raise UserError(
            f"Answers of {max_tokens:,} tokens leave no room for a question: the model reads {limit:,}.",
            remedy="Leave the task out, or lower max_gen_toks in a task file of your own.",
            reason="CONTEXT_EXCEEDED",
            field=at,
        )
    return limit - max_tokens


def measure_task(
    loaded: LoadedModel,
    spec: ResolvedSpec,
    saes: Saes,
    name: str,
    found: FoundTasks,
    wanted: CapabilityTasks,
    *,
    batch_rows: int,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda answered, asked: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[TaskScore]:
    """Scores of a steered model on one of the names asked for: a task, a group or a tag.

    A spec that changes nothing here is no fault: a feature that is silent on a benchmark leaves it alone, and that is
    what ``changed_positions`` then says.

    Args:
        loaded: the model.
        spec: the change; an empty one measures the model as it is.
        saes: the SAEs.
        name: one of ``wanted.tasks``.
        found: what :func:`find_tasks` returned.
        wanted: examples and shots.
        batch_rows: requests answered together, at most.
        seed: of the choice of shots and of what is drawn; the same for every arm.
        on_progress: called with the requests answered and asked so far.
        should_stop: asked between batches and tokens.

    Raises:
        UserError: there is no room for an answer (CONTEXT_EXCEEDED), or a request asks for what is not done here
            (TASK_UNSUPPORTED).
        Stopped: when asked to stop.
    """
    harness = _harness()
    answers = SteeredAnswers(loaded, spec, saes, batch_rows, on_progress=on_progress, should_stop=should_stop)
    results = harness.simple_evaluate(
        model=_model_class()(loaded.tokenizer, answers, seed),
        tasks=list(found.by_name[name]),
        num_fewshot=wanted.shots,
        limit=wanted.limit or None,
        task_manager=found.manager,
        log_samples=False,
        bootstrap_iters=1000,
        random_seed=seed % (1 << 31),
        numpy_random_seed=seed % (1 << 31),
        torch_random_seed=seed % (1 << 31),
        fewshot_random_seed=seed % (1 << 31),
    )
    return scores_of(results, changed_positions=answers.changed, cut_requests=answers.cut)


def scores_of(results: Mapping[str, Any], *, changed_positions: int, cut_requests: int) -> list[TaskScore]:
    """Every metric in the harness' results, of tasks and groups.

    Args:
        results: what ``simple_evaluate`` returns.
        changed_positions, cut_requests: see :class:`TaskScore`.
    """
    scores = []
    for task, values in results["results"].items():
        # The number of examples stands here for tasks and groups, in "n-samples" for tasks alone.
        n = int(values.get("sample_len") or 0)
        for key, value in values.items():
            metric, comma, name = key.partition(",")
            # Without a comma it is no metric: alias, sample_len and the like.
            if not comma or metric.endswith("_stderr"):
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            shown = metric if name == "none" else f"{metric} ({name})"
            error = _number(values.get(f"{metric}_stderr,{name}"))
            scores.append(TaskScore(task, shown, _number(value), error, n, changed_positions, cut_requests))
    return scores


def _number(value: Any) -> float | None:
    """A finite number; the harness also says "N/A" and NaN."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class SteeredAnswers:
    """What a steered model answers to the two questions a harness asks: how likely is this, and how do you go on.

    Args:
        loaded: the model.
        spec: the change.
        saes: the SAEs.
        batch_rows: rows answered together, at most.
        on_progress: called after every batch with the requests answered and asked so far.
        should_stop: asked between batches and tokens.
        at: experiment field of what asks, for errors.

    Attributes:
        changed: positions changed so far.
        cut: requests so far that lost their beginning.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        spec: ResolvedSpec,
        saes: Saes,
        batch_rows: int,
        *,
        on_progress: Callable[[int, int], None] = lambda answered, asked: None,
        should_stop: Callable[[], bool] = lambda: False,
        at: str = "steer.capability.tasks",
    ) -> None:
        self._at = at
        self._loaded, self._spec, self._saes = loaded, spec, saes
        self._rows, self._on_progress, self._should_stop = batch_rows, on_progress, should_stop
        self._special = special_ids(loaded.tokenizer)
        self._answered = self._asked = 0
        self.changed = self.cut = 0

    @property
    def max_length(self) -> int:
        """Tokens read at most."""
        return limit_of(self._loaded)

    def likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation after its context, and whether greedy decoding would write it.

        What is longer than :attr:`max_length` is cut off at the left, as the harness does, and counted in :attr:`cut`.

        Args:
            pairs: token ids of context and continuation; neither is empty.

        Raises:
            Stopped: when asked to stop.
        """
        return [(given.logprob, all(given.greedy_T)) for given in self.given(pairs)]

    def given(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[GivenAnswer]:
        """The same, token by token; see :meth:`likelihoods`."""
        self._asked += len(pairs)
        # The last token is predicted, not read.
        self.cut += sum(len(context) + len(continuation) - 1 > self.max_length for context, continuation in pairs)
        answers = [GivenAnswer((), ())] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index][0]) - len(pairs[index][1]))
        while order:
            self._stop_if_asked()
            longest = min(self.max_length + 1, sum(map(len, pairs[order[0]])))
            rows = min(self._rows, max(1, LOGITS_AT_ONCE // (self._loaded.facts.vocab_size * longest)))
            part, order = order[:rows], order[rows:]
            for index, answer in zip(part, self._given([pairs[index] for index in part]), strict=True):
                answers[index] = answer
            self._count(len(part))
        return answers

    @torch.no_grad()
    def _given(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[GivenAnswer]:
        rows = []
        for context, continuation in pairs:
            whole = [*context, *continuation][-(self.max_length + 1) :]
            rows.append((whole, len(whole) - min(len(continuation), len(whole) - 1)))
        # The last token is only predicted.
        width = max(len(whole) for whole, _ in rows) - 1
        ids_BT = torch.full((len(rows), width), self._loaded.tokenizer.pad_token_id or 0, dtype=torch.int64)
        mask_BT = torch.zeros(len(rows), width, dtype=torch.int64)
        for row, (whole, _) in enumerate(rows):
            ids_BT[row, : len(whole) - 1] = torch.tensor(whole[:-1])
            mask_BT[row, : len(whole) - 1] = 1
        batch = self._batch([whole[:length] for whole, length in rows])
        device = self._loaded.device
        with ResidualEdits(self._loaded, batch.edits()):
            logits_BTV = self._loaded.model(
                input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False
            ).logits
        self._count_changes(batch)
        answers = []
        for row, (whole, length) in enumerate(rows):
            logprobs_TV = logits_BTV[row, length - 1 : len(whole) - 1].float().log_softmax(-1)
            target_T = torch.tensor(whole[length:], device=device)
            greedy_T = (logprobs_TV.argmax(-1) == target_T).tolist()
            logprob_T = logprobs_TV.gather(1, target_T[:, None])[:, 0].tolist()
            answers.append(GivenAnswer(tuple(logprob_T), tuple(greedy_T)))
        return answers

    def continuations(
        self, contexts: Sequence[Sequence[int]], sampling: Sampling, until: Sequence[str], noise: Sequence[int]
    ) -> list[str]:
        """Text after each context, up to the first of the stop texts, which is not part of it.

        Special tokens are no text, as with the harness' own models; one whose name is a stop text ends the answer.

        Args:
            contexts: token ids, at least one each; what leaves no room to answer is cut off at the left, and counted in
                :attr:`cut`.
            sampling: how tokens are drawn.
            until: texts that end an answer; empty ones are passed over.
            noise: one number for each context: equal numbers draw equal random numbers, see :class:`Generation`.

        Raises:
            UserError: the answers alone fill what the model reads (CONTEXT_EXCEEDED).
            Stopped: when asked to stop.
        """
        room = _room(self.max_length, sampling.max_tokens, self._at)
        self._asked += len(contexts)
        self.cut += sum(len(context) > room for context in contexts)
        longest = min(room, max(map(len, contexts), default=0)) + sampling.max_tokens
        at_once = min(self._rows, max(1, TOKENS_AT_ONCE // longest))
        answers = []
        for start in range(0, len(contexts), at_once):
            part = slice(start, start + at_once)
            rows = [list(context)[-room:] for context in contexts[part]]
            answers += self._continuations(rows, sampling, until, noise[part])
            self._count(len(rows))
        return answers

    def _continuations(
        self, rows: Sequence[Sequence[int]], sampling: Sampling, until: Sequence[str], noise: Sequence[int]
    ) -> list[str]:
        batch = self._batch(rows)
        generation = Generation(
            self._loaded, rows, sampling, noise, edits=batch.edits(), should_abort=batch.take_aborted
        )
        streams = [TextStream(self._loaded.tokenizer, until) for _ in rows]
        while not generation.done:
            self._stop_if_asked()
            step = generation.step()
            for drawn in step.drawn:
                if step.ended.get(drawn.row) == END_REASON_END_TOKEN:
                    continue
                if self._push(streams[drawn.row], drawn.token, until):
                    generation.end(drawn.row)
        for stream in streams:
            stream.finish()
        self._count_changes(batch)
        return [stream.text for stream in streams]

    def _push(self, stream: TextStream, token: int, until: Sequence[str]) -> bool:
        """Adds a token to an answer; returns whether the answer ends with it."""
        if token in self._special:
            return self._loaded.tokenizer.decode([token]) in until
        stream.push(token)
        return stream.stopped

    def _batch(self, contexts: Sequence[Sequence[int]]) -> SteeredBatch:
        # Flagged like any prompt: `where` may leave special tokens or thinking out.
        prompts = [prompt_of_ids(self._loaded.tokenizer, ids) for ids in contexts]
        return SteeredBatch(self._loaded, prompts, [self._spec] * len(prompts), self._saes)

    def _count_changes(self, batch: SteeredBatch) -> None:
        self.changed += sum(proof.changed for proof in batch.row_proofs())

    def _count(self, answered: int) -> None:
        self._answered += answered
        self._on_progress(self._answered, self._asked)

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise Stopped


def generation_settings(settings: Mapping[str, Any], *, at: str = "steer.capability.tasks") -> GenerationSettings:
    """What a request's ``generation_kwargs`` ask for, read as the harness' own models read them.

    Args:
        settings: ``until``, ``do_sample`` (without it decoding is greedy), ``temperature``, ``top_p``, ``top_k``, and
            ``max_gen_toks`` or another name of it.
        at: field of the task, for errors.

    Raises:
        UserError: it asks for anything else, such as beams or a penalty (TASK_UNSUPPORTED): left out, the score would
            not be the task's.
    """
    for name, value in settings.items():
        if name not in _SETTINGS and value is not None and (name, value) != ("num_beams", 1):
            raise _unsupported(f"The task asks to generate with {name}: {value}, which is not done here.", at)
    until = settings.get("until") or []
    texts = [until] if isinstance(until, str) else until
    draws = bool(settings.get("do_sample"))
    longest = next((int(settings[name]) for name in _LENGTHS if settings.get(name)), _ANSWER_TOKENS)
    return GenerationSettings(
        # An empty text stands in every answer, from its first token on.
        tuple(text for text in texts if text),
        float(settings.get("temperature") or 0.0) if draws else 0.0,
        float(settings.get("top_p") or 1.0) if draws else 1.0,
        int(settings.get("top_k") or 0) if draws else 0,
        longest,
    )


def noise_of(seed: int, request: int) -> int:
    """The random numbers (a seed of 63 bits) of the request at this place among all of a task: the same in every arm,
    another for each repetition of one question.
    """
    digest = hashlib.sha256(f"{seed}/request {request}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _model_class() -> type:
    """The harness' view of :class:`SteeredAnswers`; made on demand, as its base is the harness' own."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class SteeredLM(TemplateLM):
        def __init__(self, tokenizer: Any, answers: SteeredAnswers, seed: int) -> None:
            super().__init__()
            self.tokenizer, self._answers, self._seed = tokenizer, answers, seed

        @property
        def eot_token_id(self) -> int:
            return self.tokenizer.eos_token_id

        @property
        def max_length(self) -> int:
            return self._answers.max_length

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return self.tokenizer(string, add_special_tokens=bool(add_special_tokens))["input_ids"]

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            return self._answers.likelihoods([(context, continuation) for _, context, continuation in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            pairs, owners = [], []
            for index, (text,) in enumerate(request.args for request in requests):
                windows = get_rolling_token_windows(
                    token_list=self.tok_encode(text),
                    prefix_token=self.prefix_token_id,
                    # Windows cut nothing off; the logits of one as wide as a long context would fill the memory.
                    max_seq_len=min(self.max_length, _LONGEST),
                    context_len=1,
                )
                for window in windows:
                    pairs.append(make_disjoint_window(window))
                    owners.append(index)
            scores = [0.0] * len(requests)
            for index, (score, _) in zip(owners, self._answers.likelihoods(pairs), strict=True):
                scores[index] += score
            return scores

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            answers: list[str] = [""] * len(requests)
            groups: dict[GenerationSettings, list[int]] = {}
            for index, request in enumerate(requests):
                groups.setdefault(generation_settings(request.args[1]), []).append(index)
            for settings, members in groups.items():
                contexts = [self.tok_encode(requests[index].args[0]) or [self.prefix_token_id] for index in members]
                # By the place among all requests: batches and groups must not repeat each other's random numbers.
                noise = [noise_of(self._seed, index) for index in members]
                texts = self._answers.continuations(contexts, settings.sampling, settings.until, noise)
                for index, text in zip(members, texts, strict=True):
                    answers[index] = text
            return answers

    return SteeredLM
