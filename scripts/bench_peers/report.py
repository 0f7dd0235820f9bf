"""From the rounds of a benchmark to a table: medians, and ratios within a round with their spread."""

from __future__ import annotations

from statistics import median
from typing import Any


def spread(values: list[float]) -> dict[str, float]:
    """Smallest, middle and largest value."""
    return {"min": min(values), "median": median(values), "max": max(values)}


def summarise(rounds: list[dict[str, dict[str, Any]]], tokens: int) -> dict[str, dict[str, Any]]:
    """Numbers per competitor over all rounds.

    Ratios are qscope's rate over the other's in the same round, so that a slow minute of the machine hits both.
    """
    summary: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        own = [round_[name] for round_ in rounds]
        row: dict[str, Any] = {
            "steady_tokens_per_second": spread([tokens / item["steady_seconds"] for item in own]),
            "whole_tokens_per_second": spread([tokens / item["wall_seconds"] for item in own]),
            "peak_rss_mib": spread([item["peak_rss_bytes"] / 2**20 for item in own]),
            "fvu": spread([item["mean_fvu"] for item in own]),
            "versions": own[0]["versions"],
            "notes": own[0]["notes"],
        }
        if name != "qscope" and "qscope" in rounds[0]:
            for kind in ("steady", "wall"):
                ratios = [item[name][f"{kind}_seconds"] / item["qscope"][f"{kind}_seconds"] for item in rounds]
                row[f"qscope_faster_{kind}"] = spread(ratios)
        summary[name] = row
    return summary


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    settings, summary = report["settings"], report["summary"]
    model = report["model"]
    lines = [
        "# bench-peers",
        "",
        f"{model['name']} ({model['parameters']:,} parameters, {model['n_layers']} blocks), "
        f"layers {settings['layers']}, d_in {settings['d_in']}, d_sae {settings['d_sae']}, k {settings['k']}, "
        f"{settings['steps']} steps of {settings['batch_tokens']:,} tokens, context {settings['context']}, "
        f"{settings['threads']} threads, {report['repeats']} rounds in turn. {report['machine']}",
        "",
        "| | tokens/s, steady | tokens/s, whole process | peak RSS, MiB | FVU "
        "| qscope is faster by: steady | whole process |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in summary.items():
        cells = [
            _range(row["steady_tokens_per_second"], ",.0f"),
            _range(row["whole_tokens_per_second"], ",.0f"),
            _range(row["peak_rss_mib"], ",.0f"),
            _range(row["fvu"], ".4f"),
            _range(row.get("qscope_faster_steady"), ".2f"),
            _range(row.get("qscope_faster_wall"), ".2f"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Median (smallest to largest). Steady: from the first fifth of the steps to the last one. Tokens are those "
        "each SAE trained on; all layers count once. FVU: mean over layers on the same "
        f"{report['heldout_tokens']:,} held-out tokens, first tokens left out, one evaluator.",
        "",
        f"Same for all: Adam, {settings['warmup_steps']} warm-up steps, "
        f"linear decay over the last {settings['decay_steps']}, AuxK {settings['aux_k']:g}, model batches of "
        f"{settings['model_batch_tokens']:,} tokens, float32. Otherwise:",
        "",
    ]
    for name, row in summary.items():
        facts = [f"{key} {value}" for key, value in {**row["versions"], **row["notes"]}.items()]
        lines.append(f"* {name}: {'; '.join(facts)}")
    if report["tuning"]:
        lines += ["", "Rates tried before, with the FVU each reached; the best one was timed:", ""]
        for name, tried in report["tuning"].items():
            lines.append(f"* {name}: " + ", ".join(f"{rate} {fvu:.4f}" for rate, fvu in tried.items()))
    return "\n".join(lines) + "\n"


def _range(values: dict[str, float] | None, form: str) -> str:
    if values is None:
        return ""
    middle, low, high = (format(values[key], form) for key in ("median", "min", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"
