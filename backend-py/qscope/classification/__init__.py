"""Telling a labelled attribute by features: rules, their choice, baselines, and classifiers as files."""
