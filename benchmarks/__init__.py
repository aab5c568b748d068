"""Side-by-side measurements: this engine and its peers on the same prompts, lengths, adapters and threads.

`python -m benchmarks --help` lists the commands; docs/performance.md says how the figures are taken.
"""
