"""LoRA adapters as they are served. Does not know names, accounts or versions: an adapter is its digest.

adapter  LoraAdapter: what it changes of a base, and the digest that is its identity
packing  its matrices in the type in which the engine holds them
cache    packed adapters on disk, each with its verification
pool     the resident ones: loading, pins, eviction
peft/    reading and checking PEFT files
"""
