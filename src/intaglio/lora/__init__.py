"""LoRA adapters: read from PEFT files and checked (`peft`), kept in the engine's form (`packed`), resident (`pool`).

peft.py               a folder -> LoraAdapter, or AdapterError naming what is wrong
  peft_config.py        adapter_config.json: keys used, harmless, refused
  config_values.py      its single values
  module_rules.py       which modules it adapts, their rank and scaling
  patterns.py           its regular expressions, in bounded time
  safetensors_file.py   the weights file: bounds, types, finite values
  tensor_names.py       tensor name -> module, and what it is to it
  header_checks.py      names, shapes and ranks against base and config
  replacements.py       whole tables and single rows in place of the base's
  base_tables.py        tables of the base that PEFT saved beside the adapter
  adapter_values.py     the values, scaling folded in
  strict_json.py        JSON of both files
adapter.py            LoraAdapter and its digest
packed.py             the same as the engine holds it, in a file
pool.py               the resident ones: reading, pins, eviction
"""
