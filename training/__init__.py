"""Training scripts, one per job kind, run as `python -m training.KIND --run-dir DIR`."""

import os

# Read by OpenMP when torch loads: waiting threads sleep instead of spinning. With the web server on the same two cores a
# spinning pool made small steps 17 times slower (docs/training_notes.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
