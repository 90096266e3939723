"""`tornado-live doctor`: a conversation step by step, and, when asked for, what the real service does."""
