"""The engine: token ids, adapter digests and sampling parameters in, token ids out. Begin with `engine.Engine.step`.

  in the engine process  core_process (main loop), engine (one step), scheduler, sequence, kv_cache, block_pool, batch,
                         sampler, grammar, adapter_loader; verification/ (adapters before they serve)
  in the API process     client (requests, and restarting an engine that died), token_stream
  in both                protocol (their messages); memory/ (what fits into this machine)

Does not know text, stop strings, names of adapters, accounts or HTTP. Reaches arrays only through `ops`.
"""
