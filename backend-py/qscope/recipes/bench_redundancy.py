"""``qscope bench-redundancy``: what benchmarks ask for, seen from the features of their items' last tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from qscope import __version__
from qscope.data.benchmarks import read_benchmarks
from qscope.data.items import Benchmark
from qscope.data.same_text import text_key
from qscope.errors import UserError
from qscope.evaluation.advice import Advice, Ending, advise
from qscope.evaluation.clusters import Clusters, cluster, likeness_of
from qscope.evaluation.last_token import ItemReader, Rule, endings, footprints_of
from qscope.evaluation.mui import Utility, measure_utility, response_documents
from qscope.evaluation.near_duplicates import NearDuplicates, near_duplicates
from qscope.evaluation.scores import Panel, panel_measures, read_panel
from qscope.evaluation.stability import stability
from qscope.evaluation.suite import BenchmarkMeasure, Overlaps, measure, overlaps
from qscope.features.documents import DocumentTemplate
from qscope.features.encoders import model_record, sae_record
from qscope.features.extract import extract
from qscope.features.footprints import Footprints
from qscope.features.shards import Extract
from qscope.models.neurons import out_projections
from qscope.recipes.admission import admit
from qscope.recipes.feature_parts import Opened, as_json, open_model
from qscope.recipes.likeness_report import (
    COUNT_COLUMNS,
    PAIR_COLUMNS,
    cluster_section,
    clusters_record,
    counts_of,
    duplicate_sections,
    likeness_lines,
    pair_rows,
)
from qscope.recipes.panel_report import accuracy_section, panel_lines, panel_sections
from qscope.recipes.panel_run import score_panel
from qscope.recipes.redundancy_report import redundancy_report, suite_lines
from qscope.recipes.shared import pin_revision
from qscope.recipes.utility_report import UTILITY_COLUMNS, utility_row, utility_section
from qscope.runs import RunContext
from qscope.runs.files import write_csv, write_json
from qscope.runs.versions import versions
from qscope.v1.redundancy_pb2 import BenchRedundancy

AT = "bench_redundancy"
_DRAWS = 20
#: Standard errors between the closed form and random orders of the items beyond which one of them is wrong.
_GAP_LIMIT = 5
#: Columns of benchmarks.csv, before those of the subsets.
_COLUMNS = (
    "benchmark",
    "items",
    "features",
    "features_per_item",
    "items_without_token",
    "items_not_finite",
    "silent_items",
    "auc",
    "r_hat",
    "twins",
    *COUNT_COLUMNS,
    "drawn_gap",
    "elsewhere",
    "cluster",
    "ending",
    "ending_share",
    *UTILITY_COLUMNS,
    "prompts_cut",
    "rows_left_out",
    "advice",
    "reason",
)
#: Characters of a prompt shown before the run begins.
_SHOWN = 200


@dataclass(frozen=True)
class Items:
    """What became of a benchmark's items.

    Attributes:
        cut: prompts that lost their beginning.
        without_token: prompts without a token.
        not_finite: items at whose last token some layer is infinite or undefined.
        ending: the token most of them end in.
    """

    cut: int
    without_token: int
    not_finite: int
    ending: Ending

    def silent(self, measured: BenchmarkMeasure) -> int:
        """Items that were read and activate no feature."""
        return measured.silent - self.without_token - self.not_finite


def run(context: RunContext) -> None:
    """Reads every benchmark, runs its items once, and measures; a resumed run goes on after the last whole shard."""
    admit(context)
    task: BenchRedundancy = context.experiment.bench_redundancy
    for index, source in enumerate(task.benchmarks):
        pin_revision(context, source, f"{AT}.benchmarks[{index}]")
    benchmarks = [_shown(context, benchmark) for benchmark in read_benchmarks(task, AT)]
    panel = _panel(context, task, benchmarks)
    opened = open_model(context, task, at=AT)
    if task.utility.neurons and any(item.answer for one in benchmarks for item in one.items):
        # Refused before the first pass, not after it.
        out_projections(opened.loaded)
    layers = list(opened.saes)
    main = (_main_layer(task, layers), task.rules[0].name)
    rules = [Rule(rule.name, rule.top, rule.share) for rule in task.rules]
    suites: dict[tuple[int, str], dict[str, Footprints]] = {
        (layer, rule.name): {} for layer in layers for rule in rules
    }
    items: dict[str, Items] = {}
    for benchmark in benchmarks:
        footprints_by_key, items[benchmark.name] = _run_items(context, task, opened, benchmark, layers, rules)
        for key, footprints in footprints_by_key.items():
            suites[key][benchmark.name] = footprints
    utility = {one.name: _utility(context, task, opened, one) for one in benchmarks if any(i.answer for i in one.items)}
    suite = suites[main]
    measures = []
    for number, (name, footprints) in enumerate(suite.items()):
        context.progress("measuring", number, len(suite), "benchmarks")
        measured = measure(
            name,
            footprints,
            subsets=list(task.subsets),
            draws=task.draws,
            seed=context.seed_for(f"benchmark/{name}"),
        )
        measures.append(measured)
        for warning in warnings_of(measured, items[name]):
            context.warning(warning)
    context.progress("comparing", 0, len(suite), "benchmarks")
    shared = overlaps(suite)
    clusters = cluster(shared.names, likeness_of(shared.excess_smaller, shared.smaller))
    context.progress("near duplicates", 0, len(suite), "benchmarks")
    twice = _near_duplicates(task, suite, benchmarks)
    advice = advise(
        measures,
        shared,
        [other for key, other in suites.items() if key != main],
        {name: of.ending for name, of in items.items()},
    )
    context.progress("other layers and rules", 0, len(suites) - 1, "suites")
    stable = stability(suites, main, draws=_DRAWS, seed=context.seed_for("halves"))
    context.progress("writing", 0, len(suite), "benchmarks")
    _write(
        context, task, opened, benchmarks, measures, shared, advice, twice, clusters, utility, items=items, main=main
    )
    write_json(context.artifacts / "stability.json", {"layer": main[0], "rule": main[1], **asdict(stable)})
    context.artifact(context.artifacts / "stability.json", kind="stability", description="other layers, rules, halves")
    on_panel = None
    if panel is not None:
        on_panel = panel_measures(
            panel,
            suite,
            measures,
            shared,
            tide=task.panel.tide,
            draws=task.panel.draws,
            seed=context.seed_for("panel"),
        )
        write_json(
            context.artifacts / "panel.json",
            {
                "benchmarks": list(suite),
                "model_names": panel.models,
                "accuracy": {name: panel.accuracy(name) for name in suite},
                **asdict(on_panel),
            },
        )
        context.artifact(context.artifacts / "panel.json", kind="summary", description=f"{on_panel.models} models")
    endings_by_name = {name: of.ending for name, of in items.items()}
    report = redundancy_report(
        context.experiment.name, suite, measures, shared, advice, stable, endings_by_name, main, clusters.order
    )
    if len(suite) > 1:
        report.sections.append(cluster_section(clusters, chance_known=len(suite) > 2))
    if utility:
        report.sections.append(utility_section(utility))
    if twice is not None:
        report.sections.extend(duplicate_sections(twice, benchmarks, task.near_duplicate_from))
    if on_panel is not None:
        report.sections.extend(panel_sections(on_panel, measures))
        report.sections.append(accuracy_section(panel, list(suite)))
    context.report(report)
    context.info("\n".join(suite_lines(measures, advice, main)))
    if twice is not None:
        context.info("\n".join(likeness_lines(twice, task.near_duplicate_from)))
    if on_panel is not None:
        context.info("\n".join(panel_lines(on_panel)))


def _near_duplicates(
    task: BenchRedundancy, suite: Mapping[str, Footprints], benchmarks: Sequence[Benchmark]
) -> NearDuplicates | None:
    if not task.near_duplicate_from:
        return None
    return near_duplicates(
        suite,
        [[text_key(item.prompt) for item in benchmark.items] for benchmark in benchmarks],
        threshold=task.near_duplicate_from,
        limit=task.near_duplicate_rows,
    )


def _utility(context: RunContext, task: BenchRedundancy, opened: Opened, benchmark: Benchmark) -> Utility:
    """One more pass, over prompts with their answers; a resumed run does it again."""
    template = DocumentTemplate(opened.loaded.tokenizer, task.rendering, f"{AT}.rendering")
    documents, cut = response_documents(benchmark.items, opened.loaded.tokenizer, template, task.context)
    name = f"{benchmark.name}, answers"
    found = measure_utility(
        opened.loaded,
        opened.saes,
        documents,
        share=task.utility.share,
        neurons=task.utility.neurons,
        batch_tokens=task.model_batch_tokens,
        cut=cut,
        on_progress=lambda done: context.progress(name, done, len(documents), "items"),
        should_stop=lambda: context.stop_requested,
    )
    if found is None:
        context.stop(0)
    if found.not_finite:
        context.warning(
            f"{benchmark.name}: at {found.not_finite:,} of {len(documents):,} answers the model is infinite or "
            "undefined: they are left out of the model utility index."
        )
    if cut:
        context.warning(f"{benchmark.name}: {cut:,} prompts with their answers were cut to {AT}.context.")
    return found


def warnings_of(measured: BenchmarkMeasure, items: Items) -> list[str]:
    """What to know before believing a benchmark's numbers."""
    of_all = f"of {measured.items:,} items"
    silent = items.silent(measured)
    found = []
    if items.without_token:
        found.append(f"{measured.name}: {items.without_token:,} {of_all} have no token.")
    if items.not_finite:
        found.append(f"{measured.name}: at {items.not_finite:,} {of_all} the model is infinite or undefined.")
    if silent:
        found.append(f"{measured.name}: {silent:,} {of_all} activate no feature.")
    if measured.drawn_gap > _GAP_LIMIT:
        found.append(
            f"{measured.name}: the exact AUC lies {measured.drawn_gap:.1f} standard errors from that of random orders "
            "of the items; one of them is wrong, please report it."
        )
    return found


def _shown(context: RunContext, benchmark: Benchmark) -> Benchmark:
    first = benchmark.items[0].prompt
    shown = first if len(first) <= _SHOWN else f"{first[:_SHOWN]} ..."
    context.info(f"{benchmark.name}: {len(benchmark.items):,} items, prompt {benchmark.template}, the first:\n{shown}")
    if benchmark.items[0].right is not None:
        context.info(f"{benchmark.name}: its right answer:\n{benchmark.items[0].right.text[:_SHOWN]}")
    if benchmark.faults:
        fault = benchmark.faults[0]
        context.warning(
            f"{benchmark.name}: {len(benchmark.faults):,} rows left out, listed in artifacts/faults.csv; "
            f"the first: {fault.place}: {fault.why}."
        )
    return benchmark


def _panel(context: RunContext, task: BenchRedundancy, benchmarks: Sequence[Benchmark]) -> Panel | None:
    if not task.panel.source and not task.panel.models:
        return None
    names = [benchmark.name for benchmark in benchmarks]
    if task.panel.tide and task.panel.tide not in names:
        raise UserError(
            f"The tide '{task.panel.tide}' is none of the benchmarks.",
            remedy=f"Benchmarks are {', '.join(names[:20])}.",
            reason="BENCHMARK_UNKNOWN",
            field=f"{AT}.panel.tide",
        )
    if task.panel.models:
        return read_panel(str(score_panel(context, task, benchmarks)), benchmarks, at=f"{AT}.panel.models")
    panel = read_panel(task.panel.source, benchmarks, metrics=list(task.panel.metrics), at=f"{AT}.panel")
    if panel.unknown:
        named = ", ".join(f"{name} ({count:,})" for name, count in list(panel.unknown.items())[:12])
        context.warning(
            f"{sum(panel.unknown.values()):,} scores are of benchmarks that are not measured here, by name: {named}"
        )
    if panel.unmatched:
        context.warning(f"{panel.unmatched:,} scores are of items that are not measured here: left out, or not there.")
    return panel


def _main_layer(task: BenchRedundancy, layers: Sequence[int]) -> int:
    if not task.HasField("layer"):
        return layers[2 * len(layers) // 3]
    if task.layer not in layers:
        raise UserError(
            f"Layer {task.layer} is not among those looked at.",
            remedy=f"Layers are {', '.join(map(str, layers))}.",
            reason="SAE_LAYER_MISSING",
            field=f"{AT}.layer",
        )
    return task.layer


def _run_items(
    context: RunContext,
    task: BenchRedundancy,
    opened: Opened,
    benchmark: Benchmark,
    layers: Sequence[int],
    rules: Sequence[Rule],
) -> tuple[dict[tuple[int, str], Footprints], Items]:
    reader = ItemReader(
        benchmark,
        opened.loaded.tokenizer,
        context=task.context,
        rendering=task.rendering,
        rendering_at=f"{AT}.rendering",
    )
    folder = context.artifacts / "activations" / benchmark.name
    total = len(benchmark.items)
    manifest = extract(
        opened.loaded,
        opened.saes,
        reader,
        folder,
        identity={
            "model": as_json(model_record(opened.loaded.facts)),
            "saes": [as_json(sae_record(sae)) for sae in opened.saes.values()],
            "text": reader.identity(),
            "context": task.context,
            "rendering": as_json(task.rendering),
        },
        facts={"versions": versions()},
        documents=0,
        shard_documents=task.shard_items,
        layout="safetensors",
        batch_tokens=task.model_batch_tokens,
        on_progress=lambda done: context.progress(benchmark.name, done, total, "items"),
        should_stop=lambda: context.stop_requested,
    )
    if manifest is None:
        context.stop(0)
    if reader.cut:
        context.warning(f"{benchmark.name}: {reader.cut:,} prompts lost their beginning to {AT}.context.")
    whole = Extract(folder)
    ending = Ending.of(endings(whole), opened.loaded.tokenizer.decode)
    items = Items(reader.cut, reader.empty, manifest["tokens_not_finite"], ending)
    return footprints_of(whole, layers, rules), items


def _write(
    context: RunContext,
    task: BenchRedundancy,
    opened: Opened,
    benchmarks: Sequence[Benchmark],
    measures: Sequence[BenchmarkMeasure],
    shared: Overlaps,
    advice: Sequence[Advice],
    twice: NearDuplicates | None,
    clusters: Clusters,
    utility: Mapping[str, Utility],
    *,
    items: Mapping[str, Items],
    main: tuple[int, str],
) -> None:
    rows = [
        {
            "benchmark": measured.name,
            "items": measured.items,
            "features": measured.features,
            "features_per_item": measured.per_item,
            "items_without_token": items[measured.name].without_token,
            "items_not_finite": items[measured.name].not_finite,
            "silent_items": items[measured.name].silent(measured),
            "auc": measured.auc,
            "r_hat": measured.r_hat,
            "twins": measured.twins,
            **counts_of(twice, index),
            "drawn_gap": measured.drawn_gap,
            "elsewhere": float(shared.elsewhere[index]),
            "cluster": clusters.number_of(measured.name),
            "ending": items[measured.name].ending.text,
            "ending_share": items[measured.name].ending.share,
            **utility_row(utility, measured.name),
            "prompts_cut": items[measured.name].cut,
            "rows_left_out": len(benchmarks[index].faults),
            "advice": advice[index].verdict,
            "reason": advice[index].reason,
            **{f"covered_by_{part.share:g}": part.covered for part in measured.subsets},
        }
        for index, measured in enumerate(measures)
    ]
    folder = context.artifacts
    write_csv(folder / "benchmarks.csv", [*_COLUMNS, *(f"covered_by_{share:g}" for share in task.subsets)], rows)
    write_csv(
        folder / "overlap.csv",
        ("benchmark", "with", "overlap", "overlap_by_chance", "excess", "overlap_min"),
        (
            {
                "benchmark": one,
                "with": other,
                "overlap": float(shared.directed[i, j]),
                "overlap_by_chance": float(shared.chance[i, j]),
                "excess": float(shared.excess[i, j]),
                "overlap_min": float(shared.smaller[i, j]),
            }
            for i, one in enumerate(shared.names)
            for j, other in enumerate(shared.names)
            if i != j
        ),
    )
    write_csv(
        folder / "faults.csv",
        ("benchmark", "place", "why"),
        (
            {"benchmark": benchmark.name, "place": fault.place, "why": fault.why}
            for benchmark in benchmarks
            for fault in benchmark.faults
        ),
    )
    measure_name = "excess of the smaller in the larger over chance" if len(rows) > 2 else "overlap_min"
    write_json(folder / "clusters.json", clusters_record(clusters, shared.names, measure_name))
    if twice is not None:
        write_csv(folder / "near_duplicates.csv", PAIR_COLUMNS, pair_rows(twice, benchmarks))
        listed = f"{len(twice.pairs):,} of {twice.found:,} pairs" if twice.found > len(twice.pairs) else "every pair"
        context.artifact(folder / "near_duplicates.csv", kind="table", description=f"items that are alike, {listed}")
    write_json(
        folder / "subsets.json",
        {
            measured.name: [
                {
                    "share": part.share,
                    "items": [benchmarks[index].items[item].number for item in part.chosen],
                    "places": [benchmarks[index].items[item].place for item in part.chosen],
                }
                for part in measured.subsets
            ]
            for index, measured in enumerate(measures)
        },
    )
    write_json(
        folder / "redundancy.json",
        {
            "qscope_version": __version__,
            "model": as_json(model_record(opened.loaded.facts)),
            "saes": [as_json(sae_record(sae)) for sae in opened.saes.values()],
            "layer": main[0],
            "rule": main[1],
            "rules": [as_json(rule) for rule in task.rules],
            "benchmarks": rows,
        },
    )
    for name, what in (
        ("redundancy.json", f"{len(rows)} benchmarks, layer {main[0]}, rule {main[1]}"),
        ("benchmarks.csv", "the same as a table"),
        ("overlap.csv", "every pair"),
        ("clusters.json", "benchmarks that belong together"),
        ("subsets.json", "rows of the subsets that keep most features"),
        ("faults.csv", "rows left out"),
    ):
        context.artifact(folder / name, kind="summary" if name.endswith("json") else "table", description=what)
