"""What models and caches need, what the machine has left, and whether it fits, asked before anything is allocated."""
