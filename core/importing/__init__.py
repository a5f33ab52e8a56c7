"""Data in: read a file of any supported format, recognise what it holds, and store it as a dataset, all or nothing."""
