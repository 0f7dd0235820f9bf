"""One of the ranks that torchrun starts: its seat is that of torchrun's variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from qscope.runs import Seat

if __name__ == "__main__":
    verb, folder = sys.argv[1], Path(sys.argv[2])
    seat = Seat(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.getppid(), folder)
    os.environ["QSCOPE_SEAT"] = seat.variables["QSCOPE_SEAT"]
    torch.set_num_threads(1)
    if verb == "sft":
        from tests.posttraining.tuned_ranks import main
    else:
        from tests.posttraining.reinforced_ranks import main
    main(folder)
