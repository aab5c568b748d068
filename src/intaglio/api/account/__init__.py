"""The account routes that command-line clients ask before they begin."""
