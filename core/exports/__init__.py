"""Getting data out: rows of each kind, file formats, and the manifest that says what was left out and why."""
