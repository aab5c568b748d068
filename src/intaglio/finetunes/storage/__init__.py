"""The files of finetunes on disk: named by content, staged while they arrive, removed when no row needs them.

Knows digests and folders, not the content of files.
"""
