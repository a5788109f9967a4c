"""Which processes train a model. Without torchrun, no module of ``sb3_vpg.distributed`` is imported."""

import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_vpg.common import torchrun
from sb3_vpg.common.arguments import OnPolicyKwargs
from sb3_vpg.common.world import ALONE, World


def prepare_process(arguments: OnPolicyKwargs) -> None:
    """
    Under torchrun, let only the first process print, and let the device "cuda" be this process's GPU.

    :param arguments: of the model's constructor
    """
    if not torchrun.is_launched():
        return
    if torchrun.rank() > 0:
        arguments["verbose"] = 0
    if th.cuda.is_available():
        th.cuda.set_device(torchrun.local_rank() % th.cuda.device_count())


def joined(model: OnPolicyAlgorithm, total_timesteps: int) -> World:
    """
    Join the processes that torchrun has started; without torchrun, this process is alone.

    :param model: the model that this process trains
    :param total_timesteps: of its ``learn``
    :raises ValueError: if the processes cannot train one model; the message says why
    """
    if not torchrun.is_launched():
        return ALONE
    from sb3_vpg.distributed.shares import check_shares
    from sb3_vpg.distributed.world import join

    world = join()
    check_shares(model, total_timesteps, world)
    return world
