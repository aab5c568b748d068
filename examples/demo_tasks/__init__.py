"""The demo tasks. Each makes (prompt, answer) pairs from a random generator, without a model."""
