"""Which policy gradient: returns, baselines and diagnostics, in NumPy alone."""
