"""The routes of finetunes: create, list, read, upload, download, roll back, delete; and asking an engine to verify.

Knows HTTP and the store's public methods, not how files and rows are kept.
"""
