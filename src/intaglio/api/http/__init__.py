"""HTTP alone: reading bodies and queries, tokens, the envelope, errors, event streams, disconnected clients.

Knows no model, no finetune and no route.
"""
