"""What a model can do: long-context checks as plain functions on a ``transformers`` model and token ids."""
