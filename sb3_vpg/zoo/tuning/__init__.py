"""The commands ``optimize``, which searches for hyperparameters, and ``best_entry``, which writes the best ones to a file."""
