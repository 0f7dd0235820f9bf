"""What every competitor is asked to do, and how it answers. Standard library only: it is read in every environment."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """One training job, the same for all.

    Attributes:
        model: folder in Hugging Face layout.
        text: file of documents that qscope reads; `tokens` holds the same text, tokenised and packed.
        tokens: .npy of int32 token ids [sequences, context], for the peers.
        layers: decoder blocks from 0, output hooked.
        d_in, d_sae, k: size of each SAE.
        context: tokens per sequence.
        batch_tokens, steps: tokens per SAE step, and number of steps.
        learning_rate, warmup_steps, decay_steps: peak rate of Adam, linear warm-up, linear decay to zero at the end.
        model_batch_tokens: tokens per pass of the language model.
        buffer_tokens: tokens in the shuffle buffer.
        aux_k: weight of the AuxK loss; 0 is off.
        dead_after_tokens: silence after which a feature is dead.
        threads: CPU threads.
        seed: of everything random.
        output: folder for the SAEs and result.json.
    """

    model: str
    text: str
    tokens: str
    layers: list[int]
    d_in: int
    d_sae: int
    k: int
    context: int
    batch_tokens: int
    steps: int
    learning_rate: float
    warmup_steps: int
    decay_steps: int
    model_batch_tokens: int
    buffer_tokens: int
    aux_k: float
    dead_after_tokens: int
    threads: int
    seed: int
    output: str

    @property
    def tokens_in_all(self) -> int:
        """Tokens each SAE sees."""
        return self.batch_tokens * self.steps

    @property
    def model_batch_sequences(self) -> int:
        """Sequences per pass of the language model."""
        return max(1, self.model_batch_tokens // self.context)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


def read_settings() -> Settings:
    """Settings of a driver: the file named by its only argument. Sets the threads of every library as a side effect."""
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text()))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(settings.threads)
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
    return settings


def write_result(settings: Settings, *, steady_seconds: float, versions: dict[str, str], notes: dict) -> None:
    """Writes result.json.

    Args:
        steady_seconds: time the whole training would have taken at the rate after the first fifth of its steps.
        versions: packages that matter.
        notes: settings that have no common name.
    """
    result = {
        "tokens": settings.tokens_in_all,
        "steady_seconds": steady_seconds,
        "versions": versions,
        "notes": {"peak rate": f"{settings.learning_rate:g}", **notes},
    }
    (Path(settings.output) / "result.json").write_text(json.dumps(result, indent=1))
