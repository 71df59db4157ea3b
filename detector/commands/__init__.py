"""The commands, one module each: parse, load the config, build, call. `cli` holds what they share.

`program` is `detector`, which runs the others by the names that `detector.command_names` lists;
`tools/NAME.py` runs the module of the same name.
"""

import os

# Before torch is loaded: threads that wait actively cost more than they save as soon as another process
# (a loader worker) wants the core, and OpenMP reads the setting once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
