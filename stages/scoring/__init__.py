"""Scoring of a split: embedding, ranking, metrics, reports, baselines, explanations; the checkpoint loader."""
