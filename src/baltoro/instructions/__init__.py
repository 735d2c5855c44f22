"""Papers, knowledge and reviews → instruction examples, and examples → tokens with loss masks."""
