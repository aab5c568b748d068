"""The account routes that command-line clients call before they begin.

There is one user and one listed account. Knows neither models nor finetunes.
"""
