"""Benchmarks seen from inside: which features their items activate, and what that says about what they measure."""
