"""What tests need and the product does not: tiny models, tiny datasets, real processes.

Nothing that is shipped imports this package.
"""
