"""HTTP alone: reading bodies and queries, tokens, the envelope, errors, event streams, disconnected clients.

Does not know models, finetunes or routes.
"""
