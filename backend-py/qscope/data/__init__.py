"""Text sources and the resumable token stream."""

from qscope.data.readers import DatasetReader, Document, FileReader, ShuffledReader, TextReader
from qscope.data.selection import Selection
from qscope.data.source import open_text
from qscope.data.tokens import Supply, TokenBatch, TokenStream, end_of_text_id, measure_supply

__all__ = [
    "DatasetReader",
    "Document",
    "FileReader",
    "Selection",
    "ShuffledReader",
    "Supply",
    "TextReader",
    "TokenBatch",
    "TokenStream",
    "end_of_text_id",
    "measure_supply",
    "open_text",
]
