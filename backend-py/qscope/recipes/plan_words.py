"""Facts of a plan in words."""

from __future__ import annotations

from qscope.data import open_text
from qscope.v1 import text_pb2


def text_fact(source: text_pb2.TextSource, at: str) -> str:
    """A text source in words; refuses one that is not there."""
    identity = open_text(source, at=at).identity()
    files, size = identity.get("files"), identity.get("bytes")
    detail = f"{files} file{'' if files == 1 else 's'}, {bytes_text(size)}" if files else identity.get("revision", "")
    return f"{source.source}{f' ({detail})' if detail else ''}, context {source.context}"


def ranges(layers: list[int]) -> str:
    """Layers as people write them: 0-3, 7."""
    parts: list[str] = []
    start = previous = layers[0]
    for layer in [*layers[1:], None]:
        if layer is not None and layer == previous + 1:
            previous = layer
            continue
        parts.append(f"{start}" if start == previous else f"{start}-{previous}")
        if layer is not None:
            start = previous = layer
    return ", ".join(parts)


def bytes_text(count: int) -> str:
    """Bytes as people write them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
