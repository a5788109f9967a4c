"""What a figure was measured on; the command line's table has the same foot."""

from sb3_vpg.common.system_info import describe

__all__ = ["describe"]
