"""SB3's small policies, computed with NumPy on the memory of their parameters."""
