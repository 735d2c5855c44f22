"""Checkpoints and a ledger that exist when the run's head names them, and resuming from them.

A run folder::

    head.json                                  the one source of truth, changed only by compare-and-swap
    checkpoints/step-00000100-attempt-0001/    shards and random states, never overwritten
        checkpoint.json                        names every file with size and SHA-256
    ledger/step-00000100-attempt-0001.jsonl    a record of every step, hash-chained, never overwritten
    ledger/open-attempt-0001.jsonl             the steps since then, until they are published or abandoned
    export-attempt-0001/                       the finished model, once the head says so

Starting or resuming claims the next *attempt* in the head. From then on an older attempt (a pod that the
cluster believes dead) can still write files under its own names, but it can publish nothing.
"""
