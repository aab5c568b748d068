"""The routes of finetunes: create, list, read, upload, download, roll back, delete; and the engine's verification.

Knows HTTP and the store's public methods, not how files and rows are stored.
"""
