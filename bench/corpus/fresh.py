"""Measurements in processes of their own.

Baltoro remembers words that it has seen: a measurement that is repeated in one process would find all of its
words known, which no corpus grants. So each runs in a new process, warmed up with other papers: modules and
tables are loaded, and nothing of the measured texts has been seen.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def in_new_process(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Result:
    """Call a module's function in a new process and return what it returns, or raise what it raises."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()
