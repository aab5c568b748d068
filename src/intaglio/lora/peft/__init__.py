"""Reading and checking PEFT adapters: a folder becomes a `LoraAdapter`, or an AdapterError says what is wrong with it.

Knows the base's shapes and PEFT's rules, not how adapters are served. Begin with `reader`. What other trainers write
is put into PEFT's terms by `lora.formats`.

    config, config_values        adapter_config.json: keys that are used, harmless or refused, and their values
    module_rules, patterns       the adapted modules, their rank and scaling; its expressions, matched in bounded time
    safetensors_file             the weights file: bounds, types, finite values
    tensor_names, header_checks  meaning of each tensor name; names, shapes and ranks against base, config and limits
    replacements, base_tables    tables and rows that replace the base's; copies of the base's tables in the file
    tensor_values                the values, scaling folded in
"""
