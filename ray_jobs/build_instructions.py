r"""Build a recipe's instruction set as a Ray job, building missing parents first.

ray job submit --address http://127.0.0.1:8265 -- \
    python ray_jobs/build_instructions.py RECIPE [section.key=value …]

Everything after the file name is what `baltoro instructions build` takes.
"""

import sys

from baltoro.cli import main

if __name__ == "__main__":
    main(["instructions", "build", *sys.argv[1:]])
