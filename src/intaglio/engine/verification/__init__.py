"""Runs an adapter beside the float32 reference before it serves requests. Begin with `verifier`.

  verifier.py    what is measured, the bounds, the messages of a refusal
  canary_run.py  one adapter's forwards, as served and by the reference
  canary.py      the text and how its tokens are laid out
  queue.py       verifications requested by the API process, in a thread

Knows the model, the backend and the engine's batches. Does not know finetunes, accounts or files of adapters.
"""
