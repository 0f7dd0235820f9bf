"""The mixing buffer: every token once, constant memory, mixing, exact resume."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscope.errors import UserError
from qscope.sae.buffer import Activations, MixingBuffer


class Counter:
    """Activations [N, 2] that carry their own number and their layer; kept are all but every third."""

    def __init__(self, sizes, layers=2):
        self.sizes, self.next, self.layers = list(sizes), 0, layers

    def __call__(self):
        if not self.sizes:
            return None
        size = self.sizes.pop(0)
        numbers_N = torch.arange(self.next, self.next + size).float()
        self.next += size
        kept_K = torch.tensor([i for i in range(size) if i % 3 != 2], dtype=torch.long)
        resids_ND = [torch.stack([numbers_N, torch.full_like(numbers_N, layer)], 1) for layer in range(self.layers)]
        return Activations(resids_ND, kept_K)


def make(tokens=20, slack=9, batch=4, seed=1) -> MixingBuffer:
    return MixingBuffer(
        2, 2, tokens=tokens, slack=slack, batch_tokens=batch, dtype=torch.float32, device=torch.device("cpu"), seed=seed
    )


def draw_all(buffer, source, most=10**9):
    batches = []
    while len(batches) < most:
        if buffer.needs_refill:
            buffer.refill(source)
        acts_LBD = buffer.draw()
        if acts_LBD is None:
            break
        batches.append(acts_LBD)
    return batches


def test_every_kept_token_is_served_once_and_at_every_layer_in_the_same_place():
    source = Counter([9] * 40)
    batches = draw_all(make(), source)
    for acts_LBD in batches:
        assert acts_LBD.shape == (2, 4, 2)
        assert torch.equal(acts_LBD[0, :, 0], acts_LBD[1, :, 0]), "one permutation for all layers"
        assert acts_LBD[:, :, 1].tolist() == [[0.0] * 4, [1.0] * 4]
    served = torch.cat([acts_LBD[0, :, 0] for acts_LBD in batches]).tolist()
    kept = [9 * batch + i for batch in range(40) for i in range(9) if i % 3 != 2]
    assert len(served) == len(set(served))
    assert set(served) <= set(kept)
    assert len(kept) - len(served) < 4, "only less than a batch is left over"


def test_a_drawn_batch_does_not_change_when_its_slots_are_used_again():
    buffer, source = make(), Counter([9] * 40)
    first = draw_all(buffer, source, most=1)[0]
    copy = first.clone()
    draw_all(buffer, source, most=15)
    assert torch.equal(first, copy)


def test_old_and_new_tokens_mix_and_the_seed_decides():
    def order(seed):
        return torch.cat([b[0, :, 0] for b in draw_all(make(seed=seed), Counter([9] * 40))])

    served = order(1)
    assert torch.equal(served, order(1))
    assert not torch.equal(served, order(2))
    distance = (served - served.sort().values).abs()
    assert distance.max() > 20, "tokens stay beyond one refill"


def test_memory_is_constant_over_many_refills():
    buffer, source = make(), Counter([9] * 500)
    storage, size = buffer._storage_LSD.data_ptr(), buffer.bytes
    assert size == MixingBuffer.bytes_needed(2, 2, 20, 9, torch.float32)
    draw_all(buffer, source)
    assert buffer._refills > 100
    assert (buffer._storage_LSD.data_ptr(), buffer.bytes, len(buffer._slots)) == (storage, size, 29)
    assert sorted(buffer._slots.tolist()) == list(range(29))


def test_half_of_the_tokens_stay_to_mix_with():
    buffer, source = make(tokens=20, batch=4), Counter([9] * 40)
    lowest = 100
    for _ in range(30):
        draw_all(buffer, source, most=1)
        lowest = min(lowest, buffer.live)
    assert lowest == 10 or 10 <= lowest < 14


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    tokens=st.integers(4, 25),
    cut=st.integers(0, 20),
)
def test_a_resumed_buffer_serves_the_same_batches(sizes, tokens, cut):
    source = Counter(sizes)
    expected = draw_all(make(tokens=tokens), source)
    first, source = make(tokens=tokens), Counter(sizes)
    got = draw_all(first, source, most=cut)
    second = make(tokens=tokens)
    second.load_state(json.loads(json.dumps(first.state_json())), first.state_tensors())
    assert second.live == first.live
    got += draw_all(second, source)
    assert len(got) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_a_buffer_smaller_than_a_batch_is_refused():
    with pytest.raises(UserError) as caught:
        make(tokens=3, batch=4)
    assert (caught.value.reason, caught.value.field) == ("BUFFER_TOO_SMALL", "train_sae.buffer.tokens")
