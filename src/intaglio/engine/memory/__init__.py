"""Checks that models and caches fit into this machine, before anything is allocated. Begin with `machine`.

  machine.py     joins the others: the settings with which every model fits, or an error with the sum
  plan.py        what is needed
  available.py   what the machine, the control group and the process leave
  open_files.py  the limit of open files, which mapped adapters need

Knows checkpoints and settings; does not load weights or know requests.
"""
