"""`baltoro gpu-check`: what training relies on, tried on one real device, and a report to attach to a bug.

``findings``     what a check found: a value, its bound, a verdict
``checks``       the checks there are, in their order; each a plain function ``device → findings``
``attention``, ``losses``, ``nf4``, ``optimizers``, ``training``, ``memory``, ``speed``: these functions
``runs``         a small model and real training runs of it, for the checks that train
``child``        one check in a process of its own
``runner``       starts the processes, ends those that take too long, gathers what they say
``environment``  device, drivers, versions, variables
``scrub``        takes out who and where
``report``       one Markdown file
``command``      all of it

It needs neither Ray nor a recipe, but it trains through ``train/``, and only ``jobs/`` stands above that.
"""
