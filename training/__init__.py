"""Training scripts, one per job kind, run as `python -m training.KIND --run-dir DIR`. Set here is what libraries read at import."""

import os
import warnings

# Read by OpenMP when torch loads: waiting threads sleep instead of spinning. With the web server on the same two cores a
# spinning pool made small steps 17 times slower (docs/training_notes.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A log file is not a terminal.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# peft 0.21 reads an attribute that transformers 5.23 has renamed; nothing we could do about it.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
