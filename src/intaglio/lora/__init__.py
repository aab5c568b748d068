"""LoRA adapters as they are served. Does not know names, accounts or versions: a digest identifies an adapter.

adapter  LoraAdapter: an adapter's changes to a base model, and its digest
packing  converts its matrices to the number type that the engine has in memory
cache    packed adapters on disk, each with its verification
pool     the adapters in memory: loading, pins, eviction
peft     reads and checks PEFT files
"""
