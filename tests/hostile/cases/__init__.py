"""What strangers send: one module per family, each case a maker of files or bodies."""
