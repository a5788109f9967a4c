"""Environments of our own. Importing this package registers them in gymnasium."""

from sb3_vpg.envs.t_maze import TMaze

__all__ = ["TMaze"]
