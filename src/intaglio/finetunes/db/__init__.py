"""The finetunes in a database: tables and their revisions, rows to records and back, queries and updates.

Does not know files and does not check adapters.
"""
