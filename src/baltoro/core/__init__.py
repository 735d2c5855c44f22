"""What every other room stands on: configuration, errors, storage, artifacts, logging.

Nothing here imports another Baltoro package.
"""
