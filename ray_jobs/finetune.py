"""Fine-tune a recipe's model as a Ray job, building missing parents first.

ray job submit --address http://127.0.0.1:8265 -- python ray_jobs/finetune.py RECIPE [section.key=value …]

Everything after the file name is what `baltoro finetune` takes.
"""

import sys

from baltoro.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
