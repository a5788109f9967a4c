"""
Compares algorithms over several seeds: ``compare``, which the command ``sb3-vpg compare`` calls.

The runs are ordinary runs of rl-zoo3 with its tuned hyperparameters, on the cores of this machine or on a Ray cluster. A
comparison that was stopped can be continued. The report has confidence intervals (Agarwal et al. 2021, arXiv 2108.13264).
"""

from sb3_vpg.compare.api import compare
from sb3_vpg.compare.results import Comparison

__all__ = ["Comparison", "compare"]
