"""Sparse features of Qwen language models as development tools."""

__version__ = "0.1.0"
