"""Hostile uploads, one module per family; each case has a function that makes its files or its body."""
