"""Build a recipe's corpus as a Ray job.

ray job submit --address http://127.0.0.1:8265 -- python ray_jobs/build_corpus.py RECIPE [section.key=value …]

Everything after the file name is what `baltoro corpus build` takes.
"""

import sys

from baltoro.cli import main

if __name__ == "__main__":
    main(["corpus", "build", *sys.argv[1:]])
