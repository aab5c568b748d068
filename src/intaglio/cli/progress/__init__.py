"""The progress of long commands: bars in a terminal, lines elsewhere."""
