"""What must hold when something breaks: one test for each fault of docs/faults.md, under its number."""
