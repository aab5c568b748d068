"""Gemma 1, 2 and 3: from a checkpoint to a forward over `ops`. Does not know requests, sequences or adapters' files.

config      shape and arithmetic of the model of a checkpoint
gemma       the forward, for the three family versions
loader      a path -> a loaded model;  weights/ reads GGUF and safetensors, quantize converts them to our formats
packed      packed weights on disk, in the file format of array_file
footprint   memory that weights need, from shapes alone
bundled     the default model, joined from its packages
"""
