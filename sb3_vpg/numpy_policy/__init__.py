"""SB3's policies, computed in NumPy on the memory of their parameters."""
