"""The distributions of sb3_contrib's maskable policies in NumPy. Importing this module imports sb3_contrib."""

from sb3_contrib.common.maskable.distributions import (
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)

from sb3_vpg.numpy_policy.distributions import NumpyCategorical, NumpyMultiCategorical, support


def support_maskable() -> None:
    """Let NumpyCategorical and NumpyMultiCategorical compute these distributions."""
    support(MaskableCategoricalDistribution, NumpyCategorical)
    support(MaskableMultiCategoricalDistribution, NumpyMultiCategorical)
    # Two outputs for each bit
    support(MaskableBernoulliDistribution, NumpyMultiCategorical)
