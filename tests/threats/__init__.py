"""What must not be possible: one test for each threat of docs/faults.md, under its number."""
