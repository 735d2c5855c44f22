"""Run a whole recipe as a Ray job.

ray job submit --address http://127.0.0.1:8265 -- python ray_jobs/pipeline.py RECIPE [section.key=value …]

Everything after the file name is what `baltoro run` takes. Paths in the recipe are read on the cluster: give
s3:// URIs, or absolute paths that every node mounts.
"""

import sys

from baltoro.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
