"""The mathematics of the policy gradient: returns, baselines, advantages and diagnostics."""
