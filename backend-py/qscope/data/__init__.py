"""Text sources and the resumable token stream."""

from qscope.data.readers import DatasetReader, FileReader, ShuffledReader, TextReader
from qscope.data.source import open_text
from qscope.data.tokens import Supply, TokenBatch, TokenStream, end_of_text_id, measure_supply

__all__ = [
    "DatasetReader",
    "FileReader",
    "ShuffledReader",
    "Supply",
    "TextReader",
    "TokenBatch",
    "TokenStream",
    "end_of_text_id",
    "measure_supply",
    "open_text",
]
