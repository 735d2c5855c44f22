"""The commands that :mod:`baltoro.cli` puts together, a module for each part of a model's life."""
