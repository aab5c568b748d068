"""The routes that a Worker's `env.AI` binding calls, directly or through a proxy.

Translates the binding's form into that of the native routes. Does not know how a request runs: see `inference`.
"""
