"""What every route needs of HTTP: who is asking, reading bodies, envelopes, errors, event streams, disconnects.

Knows nothing of models, adapters or prompts.
"""
