"""What several packages need of the disk: files written durably, and files of unknown origin read within bounds.

    atomic_write        aside, synced, renamed: a reader sees the old file or the new one
    regular_file        opening a path that may be a pipe or a device
    json_object         one JSON object, strictly
    safetensors_header  where the tensors of a safetensors file lie

Does not know what the files are for: the caller says how messages name a file and which exception is raised.
"""
