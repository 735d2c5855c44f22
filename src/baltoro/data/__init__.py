"""Token datasets: tokenizer, tokenise, pack, shards, order, feed, collate.

Documents become packed rows of ``sequence_length`` tokens once, at build time; training only reads them
by index. Modules here are plain functions on NumPy and Arrow: they know neither Ray nor MLflow.
"""
