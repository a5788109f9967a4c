"""
Comparisons of algorithms with the statistics that a reviewer accepts: ``compare``, which ``sb3-vpg compare`` calls.

The runs are ordinary runs of rl-zoo3 with its tuned hyperparameters; they are resumed when they were stopped, spread over the
cores of one machine or over a Ray cluster, and reported with intervals (Agarwal et al. 2021, arXiv 2108.13264).
"""

from sb3_vpg.compare.api import compare
from sb3_vpg.compare.results import Comparison

__all__ = ["Comparison", "compare"]
