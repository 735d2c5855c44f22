"""Training on Ray Train: what is checked before, the workers, and what happens when they fail."""
