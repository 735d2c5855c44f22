"""Wiring: a recipe's sections become artifacts, one stage after the other.

``recipe``   the whole configuration file, composed from the sections' own config classes
``stages``   what each stage reads, what identifies it, and what builds it
``runner``   plan (done, new, stale), then build in order, each stage an MLflow run
``cluster``  connect to Ray, local or given, and refuse too few CPUs
"""
