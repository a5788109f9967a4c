"""Find the line of a user's program that a warning should name."""

import inspect


def stacklevel_of_caller() -> int:
    """
    :return: the ``stacklevel`` with which a warning of the calling function names the first line outside this package, however
        many methods of subclasses are in between
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("sb3_vpg."):
        frame, level = frame.f_back, level + 1
    return level
