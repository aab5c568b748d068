"""Checks that models and caches fit into this machine, before anything is allocated. Begin with `machine`.

  machine.py        uses the other modules: the settings with which every model fits, or an error with the sum
  weight_format.py  the format that `auto` means for weights that would not fit
  plan.py           how much memory is needed
  available.py      how much the machine, the control group and the process leave
  open_files.py     raises the limit of open files, which mapped adapters need

Knows checkpoints and settings; does not load weights or know requests.
"""
