"""A study: one file that says what is wanted, and the commands that lead from a corpus to a trained model."""
