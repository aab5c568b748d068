"""The demo tasks: each turns a random generator into (prompt, answer) pairs and knows no model."""
