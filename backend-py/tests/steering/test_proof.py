"""Counts of what was changed equal plain sums, however many passes wait to be added up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qscope.steering.proof import Proof


@pytest.mark.parametrize("asks", ["once", "in between"])
@pytest.mark.parametrize("widths", [[5], [1] * 7, [7, *[1] * 63], [3, *[1] * 200], [64, 1, 130, *[1] * 65]])
def test_counts_equal_plain_sums(widths, asks):
    generator = np.random.default_rng(len(widths))
    rows, proof = 3, Proof(3, torch.device("cpu"))
    ratios: list[list[float]] = [[] for _ in range(rows)]
    counted = np.zeros((rows, 2), dtype=int)
    for step, width in enumerate(widths):
        generated_BT = generator.random((rows, width)) < (0.2 if step == 0 else 0.9)
        change_BT = np.where(generator.random((rows, width)) < 0.6, generator.random((rows, width)), 0.0)
        resid_BTD = torch.tensor(1 + generator.random((rows, width, 3))).float()
        resid_BT = np.linalg.norm(resid_BTD.double().numpy(), axis=-1)
        proof.at(4).count(generated_BT, torch.tensor(change_BT).float(), resid_BTD)
        for row in range(rows):
            hit = change_BT[row] > 0
            ratios[row] += (change_BT[row][hit] / resid_BT[row][hit]).tolist()
            counted[row] += [(hit & ~generated_BT[row]).sum(), (hit & generated_BT[row]).sum()]
        if asks == "in between" and step % 5 == 0:
            proof.rows()
    for row, told in enumerate(proof.rows()):
        layer = told.layers[4]
        assert (layer.prompt, layer.generated) == tuple(counted[row])
        assert layer.mean_relative == pytest.approx(np.mean(ratios[row]), rel=1e-5)
        assert layer.max_relative == pytest.approx(max(ratios[row]), rel=1e-6)


def test_nothing_changed_is_told_as_nothing():
    proof = Proof(1, torch.device("cpu"))
    proof.at(0).count(np.ones((1, 2), dtype=bool), torch.zeros(1, 2), torch.zeros(1, 2, 4))
    (row,) = proof.rows()
    assert (row.changed, row.layers[0].mean_relative, row.layers[0].max_relative) == (0, 0.0, 0.0)
