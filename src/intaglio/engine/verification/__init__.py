"""Running an adapter beside the reference before it serves requests; begin with `verifier`.

Knows the model and its backend, not finetunes, accounts or files.
"""
