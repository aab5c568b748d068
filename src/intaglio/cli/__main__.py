"""`python -m intaglio.cli` is the `intaglio` command."""

from intaglio.cli import main

main()
