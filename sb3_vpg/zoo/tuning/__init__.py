"""The commands that search for hyperparameters."""
