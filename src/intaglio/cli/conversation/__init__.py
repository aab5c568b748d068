"""`intaglio chat` and `intaglio run`: questions to a running server, or to a model in this process."""
