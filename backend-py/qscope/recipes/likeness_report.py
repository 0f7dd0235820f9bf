"""What is alike in a suite, items and whole benchmarks: its rows in files and its part of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qscope.data.items import Benchmark
from qscope.evaluation.clusters import CLUSTER_FROM, Clusters
from qscope.evaluation.near_duplicates import ItemPair, NearDuplicates
from qscope.v1 import report_pb2 as pb

PAIR_COLUMNS = ("benchmark", "place", "item", "with", "with_place", "with_item", "jaccard", "same_text")
COUNT_COLUMNS = ("alike_within", "alike_elsewhere", "same_text_within", "same_text_elsewhere")
_COUNT = pb.NumberFormat(style=pb.NUMBER_STYLE_COUNT)
_FIXED = pb.NumberFormat(style=pb.NUMBER_STYLE_FIXED, digits=3)
#: Pairs that the report shows, and characters of each prompt in it.
_SHOWN, _CHARACTERS = 15, 110


def pair_rows(found: NearDuplicates, benchmarks: Sequence[Benchmark]) -> Iterator[dict[str, Any]]:
    """Rows of near_duplicates.csv."""
    for pair in found.pairs:
        (b, n), (c, m) = pair.first, pair.second
        one, other = benchmarks[b].items[n], benchmarks[c].items[m]
        yield {
            "benchmark": benchmarks[b].name,
            "place": one.place,
            "item": one.number,
            "with": benchmarks[c].name,
            "with_place": other.place,
            "with_item": other.number,
            "jaccard": pair.jaccard,
            "same_text": int(pair.same_text),
        }


def counts_of(found: NearDuplicates | None, index: int) -> dict[str, int | None]:
    """The counts of one benchmark; nothing where none were looked for."""
    if found is None:
        return dict.fromkeys(COUNT_COLUMNS)
    return {name: getattr(found, name)[index] for name in COUNT_COLUMNS}


def clusters_record(found: Clusters, names: Sequence[str], measure: str) -> dict[str, Any]:
    """What clusters.json holds."""
    return {
        "measure": measure,
        "linkage": "average",
        "cluster_from": CLUSTER_FROM,
        "order": [names[place] for place in found.order],
        "clusters": [list(group) for group in found.groups],
        "merges": [{"likeness": merge.likeness, "benchmarks": list(merge.members)} for merge in found.merges],
    }


def likeness_lines(found: NearDuplicates, threshold: float) -> list[str]:
    """How many items are there twice, for a terminal of 80 columns."""
    return [
        f"Items with a near-duplicate (Jaccard {threshold:g} or more, rare features weigh more):",
        f"  an earlier one of their benchmark {sum(found.alike_within):,}, same text {sum(found.same_text_within):,}",
        f"  in another benchmark {sum(found.alike_elsewhere):,}, same text {sum(found.same_text_elsewhere):,}",
    ]


def duplicate_sections(
    found: NearDuplicates, benchmarks: Sequence[Benchmark], threshold: float
) -> list[pb.ReportSection]:
    """Counts by benchmark, and the closest pairs across benchmarks and within them."""
    counted = [index for index in range(len(benchmarks)) if any(counts_of(found, index).values())]
    cut = (
        f" near_duplicates.csv lists the {len(found.pairs):,} closest of {found.found:,} pairs."
        if found.found > len(found.pairs)
        else ""
    )
    text = (
        f"Alike: the Jaccard index of two footprints is {threshold:g} or more, each feature weighted by how few items "
        "of the suite have it, and what they share would single out one item of the suite. That two items ask alike "
        f"does not say that they ask the same. Same text: equal words, whatever the features.{cut}"
    )
    if not counted:
        return [pb.ReportSection(heading="Near-duplicates", text=f"{text}\n\nNone was found.")]
    columns = [
        ("benchmark", "name of the benchmark", None),
        ("items", "N", _COUNT),
        ("alike within", "items with an earlier one of the benchmark that is alike", _COUNT),
        ("alike elsewhere", "items with one that is alike in another benchmark", _COUNT),
        ("same text within", "items with the text of an earlier one of the benchmark", _COUNT),
        ("same text elsewhere", "items whose text is in another benchmark", _COUNT),
    ]
    across = [pair for pair in found.pairs if pair.first[0] != pair.second[0]]
    within = [pair for pair in found.pairs if pair.first[0] == pair.second[0]]
    return [
        pb.ReportSection(
            heading="Near-duplicates",
            text=text,
            table=pb.Table(
                caption=f"{len(counted)} of {len(benchmarks)} benchmarks have any",
                columns=[pb.TableColumn(name=name, description=why, format=form) for name, why, form in columns],
                rows=[
                    pb.TableRow(
                        cells=[
                            pb.TableCell(text=benchmarks[index].name),
                            pb.TableCell(number=len(benchmarks[index].items)),
                            *(pb.TableCell(number=count) for count in counts_of(found, index).values()),
                        ]
                    )
                    for index in counted
                ],
            ),
            sections=[
                _pairs(heading, pairs, benchmarks)
                for heading, pairs in (("Between benchmarks", across), ("Within a benchmark", within))
                if pairs
            ],
        )
    ]


def _pairs(heading: str, pairs: Sequence[ItemPair], benchmarks: Sequence[Benchmark]) -> pb.ReportSection:
    def shown(place: tuple[int, int]) -> list[pb.TableCell]:
        item = benchmarks[place[0]].items[place[1]]
        words = " ".join(item.prompt.split())
        text = words if len(words) <= _CHARACTERS else f"{words[:_CHARACTERS]} ..."
        return [pb.TableCell(text=f"{benchmarks[place[0]].name}: {item.place}"), pb.TableCell(text=text)]

    return pb.ReportSection(
        heading=heading,
        table=pb.Table(
            caption=f"The first {min(len(pairs), _SHOWN)} of {len(pairs):,} listed: same texts, then the closest",
            columns=[
                pb.TableColumn(name="item", description="benchmark, file and line"),
                pb.TableColumn(name="prompt", description="its beginning"),
                pb.TableColumn(name="alike", description="benchmark, file and line"),
                pb.TableColumn(name="its prompt", description="its beginning"),
                pb.TableColumn(name="Jaccard", description="rare features weigh more", format=_FIXED),
                pb.TableColumn(name="same text", description="equal words"),
            ],
            rows=[
                pb.TableRow(
                    cells=[
                        *shown(pair.first),
                        *shown(pair.second),
                        pb.TableCell() if pair.jaccard != pair.jaccard else pb.TableCell(number=pair.jaccard),
                        pb.TableCell(text="yes" if pair.same_text else "no"),
                    ]
                )
                for pair in pairs[:_SHOWN]
            ],
        ),
    )


def cluster_section(found: Clusters, *, chance_known: bool) -> pb.ReportSection:
    """The groups, and how alike each is; by overlap_min where chance is unknown."""
    likeness: Mapping[frozenset[str], float] = {frozenset(one.members): one.likeness for one in found.merges}
    together = [group for group in found.groups if len(group) > 1]
    alone = [group[0] for group in found.groups if len(group) == 1]
    beyond = "beyond chance" if chance_known else "(overlap_min: no third benchmark says what chance gives)"
    text = (
        f"Benchmarks joined by what the smaller has in the larger {beyond}, mean over pairs (average linkage), "
        f"down to {CLUSTER_FROM:g}. The matrices stand in this order: neighbours are alike."
    )
    alone_text = f"\n\nOf their own: {', '.join(alone)}." if alone else ""
    if not together:
        return pb.ReportSection(heading="Clusters", text=f"{text}\n\nNo two benchmarks are that alike.")
    return pb.ReportSection(
        heading="Clusters",
        text=f"{text}{alone_text}",
        table=pb.Table(
            caption=f"{len(together)} clusters of two or more of {sum(map(len, found.groups))} benchmarks",
            columns=[
                pb.TableColumn(name="cluster", description="as in benchmarks.csv"),
                pb.TableColumn(name="benchmarks", description="its members"),
                pb.TableColumn(name="likeness", description="mean over the pairs of its last join", format=_FIXED),
            ],
            rows=[
                pb.TableRow(
                    cells=[
                        pb.TableCell(text=str(found.number_of(group[0]))),
                        pb.TableCell(text=", ".join(group)),
                        pb.TableCell(number=likeness[frozenset(group)]),
                    ]
                )
                for group in together
            ],
        ),
    )
