"""The routes that a Worker's `env.AI` binding calls, and the proxied requests that it is unwrapped from.

Translates the binding's form into that of the native routes. Knows nothing of how a request runs: see `inference`.
"""
