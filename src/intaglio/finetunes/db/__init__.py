"""The finetunes in a database: tables and their revisions, rows to records and back, queries and updates.

Knows no files, and checks no adapters.
"""
