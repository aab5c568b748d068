"""LoRA adapters as they are served. Does not know names, accounts or versions: an adapter is its digest.

adapter  LoraAdapter: its changes to a base model, and the digest that is its identity
packing  its matrices converted to the number type that the engine keeps in memory
cache    packed adapters on disk, each with its verification
pool     the adapters in memory: loading, pins, eviction
peft/    reading and checking PEFT files
"""
