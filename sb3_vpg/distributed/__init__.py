"""
One model on several processes, which torchrun starts.

An environment, its seed and the random numbers of its actions belong to the index of the environment among those of all
processes. Sums over steps are sums over all processes. So the result does not depend on how many there are, up to rounding:
BLAS rounds a row of a product differently if the matrix has another number of rows. To the last bit, each environment's step
would need a product of its own.
"""

from sb3_vpg.common.torchrun import get_rank, get_world_size
from sb3_vpg.distributed.environments import make_vec_env

__all__ = ["get_rank", "get_world_size", "make_vec_env"]
