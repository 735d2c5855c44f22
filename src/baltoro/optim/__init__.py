"""The optimizer and its schedule: which parameters decay, AdamW, learning rate as a function of tokens."""
