"""How one training step is spread over processes.

A *strategy* takes a model written for one device and everything that depends on how it is spread: sharding,
loading, backward, clipping, the optimizer's update, its share of a checkpoint. The training loop talks to the
:class:`~baltoro.parallel.strategy.Strategy` interface and knows no backend's name.
"""
