"""`baltoro init`: an annotated recipe to start from."""

from __future__ import annotations

import difflib
from pathlib import Path

from baltoro.core.errors import ConfigError
from baltoro.jobs.recipe import packaged_recipes


def initialise(directory: Path, name: str) -> Path:
    """Copy a packaged recipe, comments and all, into a folder; nothing that exists is overwritten.

    Raises:
        ConfigError: there is no such recipe, or the folder already has the file.
    """
    recipes = packaged_recipes()
    if name not in recipes:
        nearest = difflib.get_close_matches(name, recipes, n=1)
        hint = f", did you mean {nearest[0]}?" if nearest else "."
        raise ConfigError(f"--from {name}: no such recipe{hint} Baltoro comes with: {', '.join(recipes)}")
    target = directory / f"{name}.yaml"
    if target.exists():
        raise ConfigError(f"{target} already exists; choose another folder, or edit that file")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        target.write_bytes(recipes[name].read_bytes())
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}; choose another folder") from None
    return target
