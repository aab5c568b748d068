"""Reading and checking PEFT adapters: a folder becomes a `LoraAdapter`, or an AdapterError says what is wrong with it.

Begin with `reader`. Knows the base's shapes and PEFT's rules, not how adapters are served.
"""
