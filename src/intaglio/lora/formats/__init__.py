"""Adapters in other formats than PEFT's, and files in place of an adapter that are something else.

mlx          the config of MLX-LM, and what its tensors' names mean
gguf         LoRA adapters of llama.cpp: one file with tensors and scaling; `gguf_to_peft` writes PEFT's two files
other_kinds  says what a file is that is no safetensors file
"""
