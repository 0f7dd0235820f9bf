"""One of two ranks: trains one step in pieces and compares its gradients with the step of one process.

    python -m tests.posttraining.two_ranks RANK FOLDER ddp|fsdp2

Prints the largest difference and the largest gradient; started by test_ranks.py.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from qscope.errors import UserError
from qscope.models.taps import tap_residuals
from qscope.posttraining.dapo import Clip, Rollouts, dapo_loss, token_logprobs
from qscope.posttraining.dead_signal import refuse_dead_capture
from qscope.posttraining.global_batch import GlobalBatch
from qscope.posttraining.sae_loss import SaeLoss
from tests.posttraining.tiny import Rows, held_at, make_model, make_rows

RANKS = 2
#: Rows of each rank's micro-batches: as many on each rank, of very different lengths.
PARTS = [[[1, 5], [3]], [[0, 7], [2, 4, 6]]]


def sae_term(model: nn.Module, decoder, rows: Rows, batch: GlobalBatch) -> Tensor:
    loss = SaeLoss([held_at(1), held_at(2)], weight=0.7)
    with tap_residuals(decoder, loss.layers) as resids:
        logits_BTV = model(input_ids=rows.ids_BT, attention_mask=rows.mask_BT.long(), use_cache=False).logits
    # DDP waits for every gradient, those above the layers of the loss too, which the cross-entropy would give.
    return loss(resids, rows.language_B, rows.answer_BT, batch).loss + 0.0 * logits_BTV.sum()


def dapo_term(model: nn.Module, decoder, rows: Rows, batch: GlobalBatch) -> Tensor:
    logits_BTV = model(input_ids=rows.ids_BT, attention_mask=rows.mask_BT.long(), use_cache=False).logits
    logprob_BT = token_logprobs(logits_BTV, rows.ids_BT)
    # Advantages that differ from row to row, whichever rank it is on.
    advantage_B = rows.ids_BT[:, 0].double() / 30 - 1
    steered_B = torch.zeros(len(advantage_B), dtype=torch.bool)
    return dapo_loss(logprob_BT, Rollouts(advantage_B, rows.answer_BT, steered_B), batch, clip=Clip()).loss


def gradients(model: nn.Module, forward_model: nn.Module, decoder, parts: list[Rows], term) -> dict[str, Tensor]:
    model.zero_grad()
    batch = GlobalBatch.of([part.answer_BT for part in parts])
    for part in parts:
        term(forward_model, decoder, part, batch).backward()
    found = {}
    for name, p in model.named_parameters():
        if p.grad is not None:
            found[name] = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad.clone()
    return found


def main(rank: int, folder: Path, kind: str) -> None:
    rows = make_rows()
    alone = {}
    for term in (sae_term, dapo_term):
        model, decoder = make_model()
        alone[term] = gradients(model, model, decoder, [rows.take(list(range(8)))], term)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS, timeout=timedelta(seconds=120)
    )
    model, decoder = make_model()
    if kind == "ddp":
        wrapped: nn.Module = nn.parallel.DistributedDataParallel(model)
    else:
        for block in decoder.blocks:
            fully_shard(block)
        wrapped = fully_shard(model)
    mine = [rows.take(index) for index in PARTS[rank]]
    result = {}
    for term in (sae_term, dapo_term):
        found = gradients(model, wrapped, decoder, mine, term)
        shared = sorted(alone[term])
        result[term.__name__] = {
            "difference": max(float((found[name] - alone[term][name]).abs().max()) for name in shared),
            "largest": max(float(alone[term][name].abs().max()) for name in shared),
        }
    if kind == "fsdp2":
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (RANKS,))
        spread = distribute_tensor(torch.ones(1, 2, 4, requires_grad=True), mesh, [Replicate()])
        try:
            refuse_dead_capture({0: spread}, [0])
        except UserError as error:
            result["spread"] = error.reason
    print(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
