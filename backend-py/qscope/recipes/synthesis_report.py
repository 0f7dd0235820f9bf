"""What a run of ``synthesize`` found: its files, what it tells its reader, and the table for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qscope import __version__
from qscope.data.items import Benchmark
from qscope.features.chat_server import Usage
from qscope.features.encoders import model_record, sae_record
from qscope.recipes.feature_parts import Opened, as_json, tokens_text
from qscope.recipes.synthesis_writer import ANSWERS, LEDGER
from qscope.runs import RunContext
from qscope.runs.files import write_csv, write_json, write_jsonl
from qscope.synthesis.coverage import DrawnCoverage
from qscope.synthesis.fired import FiringCounts
from qscope.synthesis.loop import Slot, Verdict
from qscope.synthesis.responses import Response
from qscope.synthesis.targets import Target
from qscope.v1 import report_pb2 as pb
from qscope.v1.chat_pb2 import ChatEndpoint
from qscope.v1.synthesize_pb2 import SynthesisWriter, Synthesize

_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_COUNT)
_INTEGER = pb.NumberFormat(style=pb.NUMBER_STYLE_INTEGER)
_PERCENT = pb.NumberFormat(style=pb.NUMBER_STYLE_PERCENT, digits=1)
_SHOWN = 40
VANILLA = "vanilla"
_TARGET_COLUMNS = (
    "target",
    "label",
    "score",
    "relevance",
    "seed_texts",
    "written_for",
    "tries",
    "kept",
    "fires_in",
    "best_activation",
)
_CURVE_COLUMNS = ("texts", "targeted", "random", "random_sd", "natural", "natural_sd")


@dataclass
class Outcome:
    """Everything a run found.

    Attributes:
        targets: the wanted features.
        missing: places of those written for.
        seed_counts: in how many seed texts each feature fires.
        slots: every place that was to be filled, by name.
        verdicts: every try, in order.
        kept: those whose text is kept.
        responses: one for each of them.
        random: kept texts of the same writer without a target.
        natural, natural_tokens: targets that each natural text fires, and its tokens.
        usage: what the writer took.
        endpoint: the server, for prices.
        sizes, targeted: n, and the coverage of the first n rows of the data set.
        drawn, pools, needed: of ``random`` and ``natural``: coverage of n drawn texts, texts there are, and how many of
            them reach the coverage of the whole data set (None: all of them do not).
        tokens: of a text, mean, by curve.
        equal_tokens: of ``random`` and ``natural``: texts that have as many tokens as the data set (all of them where
            they have fewer), their coverage and its spread.
        unverified, first_tries: coverage of the first tries, checked or not, at the same budget; how many those are
            (fewer where they came to no text).
        seed_coverage: coverage of the seed data set alone.
        reasons: how often a text was not kept, by reason.
    """

    targets: Sequence[Target]
    missing: Sequence[int]
    seed_counts: FiringCounts
    slots: Mapping[str, Slot]
    verdicts: Sequence[Verdict]
    kept: Sequence[Verdict]
    responses: Sequence[Response]
    random: Sequence[Verdict]
    natural: Sequence[np.ndarray] = ()
    natural_tokens: Sequence[int] = ()
    usage: Usage = field(default_factory=Usage)
    endpoint: ChatEndpoint | None = None
    sizes: list[int] = field(default_factory=list)
    targeted: list[float] = field(default_factory=list)
    drawn: dict[str, DrawnCoverage] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)
    needed: dict[str, int | None] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    equal_tokens: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    unverified: float = math.nan
    first_tries: int = 0
    seed_coverage: float = math.nan
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def dataset(self) -> list[Verdict]:
        """Kept texts with a response, where one is wanted."""
        return [one for one, response in zip(self.kept, self.responses, strict=True) if not response.reason]

    @property
    def cost(self) -> float | None:
        """What the answers cost; None without prices."""
        if self.endpoint is None or not (self.endpoint.input_price or self.endpoint.output_price):
            return None
        return self.usage.cost(self.endpoint)

    @property
    def filled(self) -> int:
        """Missing features for which a text is kept."""
        return len({self.slots[verdict.slot].target.key for verdict in self.dataset})

    def at_budget(self, name: str) -> tuple[int, float, float] | None:
        """n, coverage and spread of ``random`` or ``natural`` at the budget, or at the size of a pool below it."""
        drawn = self.drawn.get(name)
        if drawn is None or not len(drawn.size_S):
            return None
        return int(drawn.size_S[-1]), float(drawn.mean_S[-1]), float(drawn.sd_S[-1])


# -- files -----------------------------------------------------------------------------------------------------------


def write_outcome(
    context: RunContext, task: Synthesize, opened: Opened, outcome: Outcome, sources: Sequence[Benchmark]
) -> None:
    """Writes every result and announces it."""
    folder = context.artifacts
    write_jsonl(folder / "synthetic.jsonl", _dataset_rows(outcome))
    write_jsonl(folder / "rejected.jsonl", _rejected_rows(outcome))
    write_csv(folder / "targets.csv", _TARGET_COLUMNS, target_rows(outcome))
    write_csv(folder / "coverage.csv", _CURVE_COLUMNS, _curve_rows(outcome))
    write_csv(
        folder / "faults.csv",
        ("source", "place", "why"),
        ({"source": one.name, "place": fault.place, "why": fault.why} for one in sources for fault in one.faults),
    )
    write_json(folder / "synthesis.json", summary(task, opened, outcome))
    rows, tried = len(outcome.dataset), len(outcome.verdicts)
    for name, kind, what in (
        ("synthetic.jsonl", "dataset", f"{rows:,} rows in chat format"),
        ("rejected.jsonl", "rejected", f"{tried - rows:,} texts that were not kept, with the reason"),
        ("synthesis.json", "summary", f"{outcome.filled:,} of {len(outcome.missing):,} missing features filled"),
        ("targets.csv", "table", f"{len(outcome.targets):,} wanted features"),
        ("coverage.csv", "table", "coverage by number of texts"),
        ("faults.csv", "table", "rows left out"),
    ):
        context.artifact(folder / name, kind=kind, description=what)
    if outcome.random:
        path = folder / "random.jsonl"
        write_jsonl(path, ({"slot": one.slot, "text": one.text} for one in outcome.random))
        context.artifact(path, kind="dataset", description=f"{len(outcome.random):,} texts without a target")
    for name, kind, what in (
        (LEDGER, "ledger", "what became of each try, as it fell"),
        (ANSWERS, "answers", f"{outcome.usage.answers:,} answers of the writer, as they came"),
    ):
        # Where nothing was missing nothing was tried, and templates answer nothing.
        if (folder / name).exists():
            context.artifact(folder / name, kind=kind, description=what)


def _metadata(outcome: Outcome, verdict: Verdict) -> dict[str, Any]:
    slot = outcome.slots[verdict.slot]
    target = slot.target
    return {
        "slot": verdict.slot,
        "target": target.name,
        "layer": target.layer,
        "feature": target.feature,
        "label": target.label,
        "style": slot.style.name if slot.style else VANILLA,
        "rewrite_of": slot.parent_name,
        "activation": verdict.activation,
        "token": verdict.token,
        "position": verdict.position,
        "tries": verdict.attempt + 1,
    }


def _dataset_rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for verdict, response in zip(outcome.kept, outcome.responses, strict=True):
        if response.reason:
            continue
        messages = [{"role": "user", "content": verdict.text}]
        if response.text:
            messages.append({"role": "assistant", "content": response.text})
        metadata = {**_metadata(outcome, verdict), "risk": response.risk, "verified": True}
        yield {"messages": messages, "metadata": metadata}


def _rejected_rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    for verdict in outcome.verdicts:
        if not verdict.kept:
            yield {
                "text": verdict.text,
                "reason": verdict.reason,
                "detail": verdict.detail,
                "metadata": _metadata(outcome, verdict),
            }
    for verdict, response in zip(outcome.kept, outcome.responses, strict=True):
        if response.reason:
            metadata = {**_metadata(outcome, verdict), "risk": response.risk, "verified": True}
            yield {"text": verdict.text, "reason": response.reason, "detail": response.text, "metadata": metadata}


def target_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """One row for each wanted feature."""
    missing = {outcome.targets[place].key for place in outcome.missing}
    tries: Counter[int] = Counter(outcome.slots[one.slot].target.key for one in outcome.verdicts)
    best: dict[int, float] = {}
    for one in outcome.verdicts:
        key = outcome.slots[one.slot].target.key
        best[key] = max(best.get(key, 0.0), one.activation)
    kept: Counter[int] = Counter(outcome.slots[one.slot].target.key for one in outcome.dataset)
    fired: Counter[int] = Counter(key for one in outcome.dataset for key in one.fired)
    return [
        {
            "target": target.name,
            "label": target.label,
            "score": target.score,
            "relevance": target.relevance,
            "seed_texts": outcome.seed_counts.of(target.layer, target.feature),
            "written_for": target.key in missing,
            "tries": tries[target.key],
            "kept": kept[target.key],
            "fires_in": fired[target.key],
            "best_activation": best.get(target.key, 0.0),
        }
        for target in outcome.targets
    ]


def _curve_rows(outcome: Outcome) -> list[dict[str, Any]]:
    rows = []
    for place, (size, value) in enumerate(zip(outcome.sizes, outcome.targeted, strict=True)):
        row: dict[str, Any] = {"texts": size, "targeted": value}
        for name in ("random", "natural"):
            drawn = outcome.drawn.get(name)
            if drawn is not None and place < len(drawn.size_S):
                row |= {name: float(drawn.mean_S[place]), f"{name}_sd": float(drawn.sd_S[place])}
        rows.append(row)
    return rows


def summary(task: Synthesize, opened: Opened, outcome: Outcome) -> dict[str, Any]:
    """The file synthesis.json."""
    compared = {}
    for name in ("random", "natural"):
        found = outcome.at_budget(name)
        if found:
            compared[name] = {
                "texts": found[0],
                "coverage": found[1],
                "sd": found[2],
                "pool": outcome.pools[name],
                "tokens_a_text": outcome.tokens[name],
                "at_equal_tokens": dict(zip(("texts", "coverage", "sd"), outcome.equal_tokens[name], strict=True)),
                "texts_to_reach_targeted": outcome.needed[name],
            }
    slots = [outcome.slots[one.slot] for one in outcome.dataset]
    covered = Counter(slot.style.name if slot.style else VANILLA for slot in slots)
    return {
        "qscope_version": __version__,
        "model": as_json(model_record(opened.loaded.facts)),
        "saes": [as_json(sae_record(sae)) for sae in opened.saes.values()],
        "writer": SynthesisWriter.Name(task.writer).removeprefix("SYNTHESIS_WRITER_").lower(),
        "settings": as_json(task),
        "tokens": tokens_text(task),
        "targets": len(outcome.targets),
        "missing": len(outcome.missing),
        "filled": outcome.filled,
        "rows": len(outcome.dataset),
        "rows_by_style": dict(covered),
        "tries": len(outcome.verdicts),
        "rejected": dict(outcome.reasons.most_common()),
        "coverage": {
            "seed": outcome.seed_coverage,
            "targeted": outcome.targeted[-1] if outcome.targeted else None,
            "targeted_tokens_a_text": outcome.tokens.get("targeted"),
            "unverified": None if math.isnan(outcome.unverified) else outcome.unverified,
            **compared,
        },
        "usage": {
            "answers": outcome.usage.answers,
            "of_them_from_before": outcome.usage.recalled,
            "requests_of_this_attempt": outcome.usage.requests,
            "input_tokens": outcome.usage.input_tokens,
            "output_tokens": outcome.usage.output_tokens,
            "faults_of_this_attempt": dict(outcome.usage.faults),
            "cost": outcome.cost,
        },
    }


# -- words -----------------------------------------------------------------------------------------------------------


def synthesis_lines(outcome: Outcome) -> list[str]:
    """The table for a terminal of 80 columns."""
    total, rows = len(outcome.targets), len(outcome.dataset)
    seeds = outcome.seed_counts.texts
    lines = [
        f"{total:,} wanted features, {len(outcome.missing):,} missing in {seeds:,} seed texts; "
        f"{outcome.filled:,} of those filled",
        f"{'coverage':<27}{'texts':>8}{'tokens':>8}{'covered':>9}{'spread':>8}{'needed':>9}",
        _line("seed data alone", 0, outcome.seed_coverage),
    ]
    if outcome.targeted:
        lines.append(_line("with targeted texts", rows, outcome.targeted[-1], tokens=outcome.tokens.get("targeted")))
    if not math.isnan(outcome.unverified):
        lines.append(_line("with first tries, unchecked", outcome.first_tries, outcome.unverified))
    for name, title in (("random", "with untargeted texts"), ("natural", "with natural texts")):
        found = outcome.at_budget(name)
        if found:
            needed = outcome.needed[name]
            says = f"{needed:,}" if needed is not None else f">{outcome.pools[name]:,}"
            lines.append(_line(title, *found, says, tokens=outcome.tokens[name]))
            lines.append(_line("  by as many tokens", *outcome.equal_tokens[name]))
    lines.append("tokens: of a text; spread: sd over draws; needed: to cover what is targeted")
    kept = len(outcome.verdicts) and rows / len(outcome.verdicts)
    lines.append(f"{rows:,} rows kept of {len(outcome.verdicts):,} texts tried ({kept:.0%})")
    if outcome.reasons:
        lines.append("not kept: " + ", ".join(f"{reason} {count:,}" for reason, count in outcome.reasons.most_common()))
    lines += _usage_lines(outcome)
    return lines


def _line(
    title: str, texts: int, covered: float, spread: float = 0.0, needed: str = "", *, tokens: float | None = None
) -> str:
    says = f"{covered:.1%}" if not math.isnan(covered) else ""
    mean = f"{tokens:.0f}" if tokens is not None else ""
    sd = f"{spread:.1%}" if spread else ""
    return f"{title:<27}{texts:>8,}{mean:>8}{says:>9}{sd:>8}{needed:>9}".rstrip()


def _usage_lines(outcome: Outcome) -> list[str]:
    usage = outcome.usage
    if not usage.answers:
        return []
    cost = f", cost {outcome.cost:,.2f}" if outcome.cost is not None else ""
    recalled = f" ({usage.recalled:,} from before)" if usage.recalled else ""
    lines = [
        f"writer: {usage.answers:,} answers{recalled}, {usage.input_tokens:,} tokens read, "
        f"{usage.output_tokens:,} written{cost}"
    ]
    if usage.faults:
        lines.append("server: " + ", ".join(f"{kind} {count:,} x" for kind, count in usage.faults.most_common()))
    return lines


def synthesis_report(title: str, outcome: Outcome) -> pb.Report:
    """The report of a run."""
    total = len(outcome.targets)
    targeted = outcome.targeted[-1] if outcome.targeted else outcome.seed_coverage
    sections = [_facts(outcome)]
    if len(outcome.sizes) > 1:
        sections.append(_curves(outcome))
    sections += [_targets(outcome), _samples(outcome)]
    if outcome.reasons:
        sections.append(_reasons(outcome))
    return pb.Report(
        title=title,
        subtitle=f"Coverage of {total:,} wanted features: {outcome.seed_coverage:.1%} by the seed data, "
        f"{targeted:.1%} with {len(outcome.dataset):,} written texts.",
        sections=[section for section in sections if section is not None],
    )


def _facts(outcome: Outcome) -> pb.ReportSection:
    facts = [
        ("wanted features", f"{len(outcome.targets):,}"),
        ("missing in the seed data", f"{len(outcome.missing):,} ({outcome.seed_counts.texts:,} texts)"),
        ("filled", f"{outcome.filled:,}"),
        ("rows kept", f"{len(outcome.dataset):,} of {len(outcome.verdicts):,} texts tried"),
    ]
    if not math.isnan(outcome.unverified):
        facts.append(
            ("coverage of first tries, unchecked", f"{outcome.unverified:.1%} ({outcome.first_tries:,} texts)")
        )
    for name in ("random", "natural"):
        if name in outcome.needed:
            needed = outcome.needed[name]
            says = f"{needed:,}" if needed is not None else f"more than the {outcome.pools[name]:,} there are"
            facts.append((f"{_TITLES[name]} texts for the same coverage", says))
    for name, (count, covered, sd) in outcome.equal_tokens.items():
        says = f"{covered:.1%}{f' ± {sd:.1%}' if sd else ''} ({count:,} texts)"
        facts.append((f"coverage by as many tokens of {_TITLES[name]} text", says))
    for name, mean in outcome.tokens.items():
        facts.append((f"tokens of {_TITLES.get(name, name)} texts", f"{mean:.1f} in the mean"))
    facts += [tuple(line.split(": ", 1)) for line in _usage_lines(outcome)]
    return pb.ReportSection(
        heading="What was done", facts=pb.Facts(facts=[pb.Fact(name=name, value=value) for name, value in facts])
    )


_TITLES = {"random": "untargeted", "natural": "natural"}


def _curves(outcome: Outcome) -> pb.ReportSection:
    series = [pb.PlotSeries(name="targeted", x=outcome.sizes, y=outcome.targeted)]
    for name, drawn in outcome.drawn.items():
        series.append(
            pb.PlotSeries(
                name=_TITLES[name],
                x=drawn.size_S.tolist(),
                y=drawn.mean_S.tolist(),
                low=np.clip(drawn.mean_S - drawn.sd_S, 0, 1).tolist(),
                high=np.clip(drawn.mean_S + drawn.sd_S, 0, 1).tolist(),
            )
        )
    return pb.ReportSection(
        heading="Coverage",
        text="Share of the wanted features that fire in the seed data or in any of n further texts. Targeted: the rows "
        "in the order in which they were kept. Untargeted: the same writer without a feature to aim at. Natural: drawn "
        "from the natural texts. The last two are exact means over all draws of n texts.",
        line_plot=pb.LinePlot(
            x=pb.PlotAxis(label="texts added", format=_COUNT),
            y=pb.PlotAxis(label="share of the wanted features", format=_PERCENT),
            series=series,
            band="standard deviation over draws" if outcome.drawn else "",
        ),
    )


def _targets(outcome: Outcome) -> pb.ReportSection:
    rows = [row for row in target_rows(outcome) if row["written_for"]]
    labelled = any(row["label"] for row in rows)
    columns = [
        ("feature", "layer and feature", None),
        *([("label", "what it stands for", None)] if labelled else []),
        ("seed texts", "seed texts in which it fires", _INTEGER),
        ("tries", "texts tried for it", _INTEGER),
        ("kept", "rows kept for it", _INTEGER),
        ("fires in", "rows in which it fires, whatever they were written for", _INTEGER),
        ("best", "largest activation in any text tried", None),
    ]
    # Those that could not be written for come first: they are what is left to do.
    rows.sort(key=lambda row: (row["kept"] > 0, -row["tries"]))
    return pb.ReportSection(
        heading="Missing features",
        text=f"The first {min(_SHOWN, len(rows)):,} of {len(rows):,}, unfilled ones first; all are in targets.csv.",
        table=pb.Table(
            caption="Features written for",
            columns=[pb.TableColumn(name=name, description=why, format=form) for name, why, form in columns],
            rows=[
                pb.TableRow(
                    cells=[
                        pb.TableCell(text=row["target"]),
                        *([pb.TableCell(text=row["label"])] if labelled else []),
                        *(pb.TableCell(number=row[name]) for name in ("seed_texts", "tries", "kept", "fires_in")),
                        pb.TableCell(number=row["best_activation"]),
                    ]
                )
                for row in rows[:_SHOWN]
            ],
        ),
    )


def _samples(outcome: Outcome) -> pb.ReportSection | None:
    kept = list(zip(outcome.kept, outcome.responses, strict=True))
    chosen = [(verdict, response) for verdict, response in kept if not response.reason][:_SHOWN]
    if not chosen:
        return None
    rows = []
    for verdict, response in chosen:
        slot = outcome.slots[verdict.slot]
        style = slot.style.name if slot.style else VANILLA
        note = f"{style}, {verdict.activation:.3g} at {verdict.token!r}"
        cells = [pb.SampleCell(text=verdict.text, note=note), pb.SampleCell(text=response.text, note=response.risk)]
        rows.append(pb.SampleRow(prompt=f"{slot.target.name} {slot.target.label}".strip(), cells=cells))
    return pb.ReportSection(
        heading="Rows",
        text=f"The first {len(rows):,} of {len(outcome.dataset):,}.",
        folded=True,
        samples=pb.Samples(arms=[pb.SampleArm(name="prompt"), pb.SampleArm(name="response")], rows=rows),
    )


def _reasons(outcome: Outcome) -> pb.ReportSection:
    return pb.ReportSection(
        heading="Not kept",
        table=pb.Table(
            caption=f"Why texts were not kept, of {len(outcome.verdicts):,} tried",
            columns=[
                pb.TableColumn(name="reason", description="the first that applied"),
                pb.TableColumn(name="texts", description="how often", format=_INTEGER),
            ],
            rows=[
                pb.TableRow(cells=[pb.TableCell(text=reason), pb.TableCell(number=count)])
                for reason, count in outcome.reasons.most_common()
            ],
        ),
    )
