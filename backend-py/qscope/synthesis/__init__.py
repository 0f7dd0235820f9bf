"""Data written for features: what a data set misses, texts in which the missing features verifiably fire, coverage."""
