"""Which processes train a model. Without torchrun, no module of ``sb3_vpg.distributed`` is imported."""

import torch as th

from sb3_vpg.common import torchrun
from sb3_vpg.common.arguments import OnPolicyKwargs
from sb3_vpg.common.world import SINGLE_PROCESS, World


def prepare_process(arguments: OnPolicyKwargs) -> None:
    """
    Under torchrun, let only the first process print, and let the device "cuda" be this process's GPU.

    :param arguments: of the model's constructor
    """
    if not torchrun.is_launched():
        return
    if torchrun.get_rank() > 0:
        arguments["verbose"] = 0
    if th.cuda.is_available():
        th.cuda.set_device(torchrun.local_rank() % th.cuda.device_count())


def join_processes() -> World:
    """:return: the processes that torchrun has started; without torchrun, this process alone"""
    if not torchrun.is_launched():
        return SINGLE_PROCESS
    from sb3_vpg.distributed.world import join

    return join()
