"""Baltoro turns a folder of parsed scientific papers into a pretrained, registered language model.

Start with ``baltoro init``, ``baltoro run RECIPE`` and docs/architecture.md.
"""

from importlib.metadata import version

__version__ = version("baltoro")
