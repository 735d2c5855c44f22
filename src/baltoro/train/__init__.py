"""Training: the loop, its loss, its hooks, and one function that runs it all.

:func:`~baltoro.train.run.train_model` is what a worker calls. It knows neither Ray nor MLflow: give it an
initialised process group, a dataset, a storage and a place for the run, and read
:mod:`baltoro.train.loop` to see what a step is.
"""
