"""Writes files durably, and reads files of unknown origin within bounds.

    atomic_write        writes aside, syncs, renames: a reader sees the old file or the new one
    regular_file        opens a path that may be a pipe or a device
    json_object         reads one JSON object, strictly
    lfs_pointer         recognises what a clone without `git lfs pull` has in place of a file
    safetensors_header  finds the tensors of a safetensors file

Does not know what the files are for: the caller says how messages name a file and which exception is raised.
"""
