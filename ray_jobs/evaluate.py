"""Measure a recipe's model as a Ray job, building missing parents first.

ray job submit --address http://127.0.0.1:8265 -- python ray_jobs/evaluate.py RECIPE [section.key=value …]

Everything after the file name is what `baltoro evaluate` takes.
"""

import sys

from baltoro.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
