"""Advice: one case for every verdict, and what must not lead to one."""

from __future__ import annotations

import numpy as np

from qscope.evaluation.advice import Ending, advise
from qscope.evaluation.suite import measure, overlaps
from qscope.features.footprints import Footprints
from tests.evaluation.conftest import random_benchmark


def advised(suite, others=(), endings=None):
    measures = [measure(name, part, subsets=[], draws=0, seed=0) for name, part in suite.items()]
    return {one.name: one for one in advise(measures, overlaps(suite), others, endings)}


def test_unrelated_benchmarks_share_what_chance_gives():
    """Draws from one pool that nearly fill it: they overlap by more than 80 %, and mean nothing by it."""
    suite = {f"b{n}": random_benchmark(n, 60 + 20 * n, range(200), 8) for n in range(6)}
    shared = overlaps(suite)
    off = ~np.eye(6, dtype=bool)
    assert shared.smaller[off].min() > 0.8
    assert np.abs(shared.directed - shared.chance)[off].max() < 0.06
    assert {one.verdict for one in advised(suite).values()}.isdisjoint({"merge"})


def test_a_part_of_another_is_to_be_merged_and_its_container_is_not_extended(mixed):
    found = advised(mixed)
    assert found["part"].verdict == "merge"
    assert found["part"].reason.endswith(" of its features are active in b0 (0% by chance)")
    # Most features of the containers are their own, and yet the suite has something of their kind.
    alone = {"large": mixed["b0"], "small": random_benchmark(5, 60, range(60), 8)}
    alone |= {f"far{n}": random_benchmark(n, 100, range(2000, 2400), 8) for n in range(3)}
    shared = overlaps(alone)
    assert shared.elsewhere[0] < 0.25
    found = advised(alone)
    assert (found["small"].verdict, found["large"].verdict) == ("merge", "keep")


def test_a_benchmark_unlike_all_others_asks_for_more_of_its_kind(mixed):
    found = advised({**mixed, "own": random_benchmark(7, 60, range(5000, 5400), 8)})
    assert found["own"].verdict == "extend"
    assert found["own"].reason.startswith("the suite has nothing else of its kind")
    assert [name for name, one in found.items() if one.verdict == "extend"] == ["own"]


def test_other_layers_and_rules_have_to_say_so_too(mixed):
    far = {**mixed, "part": random_benchmark(9, 60, range(7000, 7120), 8)}
    assert advised(mixed, [mixed, far])["part"].verdict == "merge"
    assert "so at 1 of 2 other layers and rules" in advised(mixed, [mixed, far])["part"].reason
    doubted = advised(mixed, [mixed, far, far])["part"]
    assert doubted.verdict != "merge"


def test_an_ending_in_common_is_told_from_what_is_asked():
    far = {f"far{n}": random_benchmark(20 + n, 60, range(9000 * n + 9000, 9000 * n + 9600), 8) for n in range(8)}
    host, part = random_benchmark(0, 400, range(600), 8), random_benchmark(9, 60, range(120), 8)

    def verdict(third: Footprints, share: float = 0.95, **texts: str):
        suite = {"host": host, "part": part, "alike": third, **far}
        return advised(suite, endings={name: Ending(texts.get(name, name), share) for name in suite})["part"]

    # A third that ends so has the features of the part as well: it is the ending that they share.
    same = random_benchmark(8, 60, range(120), 8)
    assert verdict(same).verdict == "merge"
    assert "end in" not in verdict(same).reason
    assert verdict(same, part="?", host="?", alike="?").verdict != "merge"
    assert verdict(same, share=0.89, part="?", host="?", alike="?").verdict == "merge"
    # One that ends so and has other features: it is more than the ending.
    other = verdict(random_benchmark(8, 60, range(8000, 8400), 8), part="?", host="?", alike="?")
    assert other.verdict == "merge"
    assert other.reason.endswith("; 0% by chance among those that end in '?' too")
    # None that ends so: nothing tells.
    alone = verdict(same, part="?", host="?")
    assert alone.verdict == "unknown"
    assert "both end in '?' and no other benchmark does" in alone.reason


def test_a_tenth_that_keeps_all_is_enough():
    worn = Footprints.of([[*range(100, 110), 900 + n % 2] for n in range(50)])
    found = advised({"worn": worn, **{f"b{n}": random_benchmark(n, 90, range(100, 500), 8) for n in range(3)}})
    assert found["worn"].verdict == "shrink"
    assert found["worn"].reason.startswith("5 of 50 items keep 100% of its features")


def test_what_was_not_measured_is_unknown(mixed):
    varied = Footprints.of([[n] for n in range(20)])
    found = advised({**mixed, "few": random_benchmark(1, 19, range(900), 8), "none": Footprints.of([[]] * 30)})
    assert (found["few"].verdict, found["few"].reason) == ("unknown", "19 items say too little, it takes 20")
    assert (found["none"].verdict, found["none"].reason) == ("unknown", "no item activates a feature")
    assert found["part"].verdict == "merge", "neither is compared with"
    alone = advised({"b": varied})["b"]
    assert alone.verdict == "unknown"
    assert alone.reason.startswith("there is no other benchmark to compare it with; a tenth of its items keeps 10%")
    assert advised({"b": Footprints.of([[1]] * 20)})["b"].verdict == "shrink"
    # Contained in the only other one: without a third nothing says what chance gives.
    two = advised({"b": varied, "c": Footprints.of([[n, n + 20] for n in range(20)])})
    assert two["b"].verdict == "unknown"
    assert "no third benchmark" in two["b"].reason


def test_most_items_end_in_a_token_and_parts_of_characters_are_told_apart():
    texts = {3: "?", 5: "\ufffd", 6: "\ufffd"}

    def ending(*lasts: int) -> Ending:
        return Ending.of(np.array(lasts), lambda ids: texts[ids[0]])

    assert ending(3, 5, 3, -1) == Ending("?", 0.5)
    assert ending(-1, -1, -1, 3) == Ending("?", 0.25)
    assert ending(-1, -1) == Ending("", 0.0)
    assert ending(5, 5) == Ending("part of a character, token 5", 1.0)
    assert ending(6) != ending(5)
