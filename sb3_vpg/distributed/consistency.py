"""What the processes of a run must have in common, and what must differ: checks before training, and the same weights."""

import hashlib
import inspect
import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sb3_vpg.common.world import World
from sb3_vpg.vec_env.vec_normalize import wrappers_of

_OF_A_PROCESS = {
    "self",
    "policy",
    "env",
    "args",
    "kwargs",
    "device",
    "verbose",
    "tensorboard_log",
    "monitor_wrapper",
    "_init_setup_model",
}
"""Arguments that may differ between the processes of a run."""
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_WAY_OUT = "Let every process run the same program; sb3_vpg.distributed.make_vec_env builds this process's environments"


def check_shards(model: BaseAlgorithm, total_timesteps: int, world: World) -> None:
    """
    :param total_timesteps: of ``learn``
    :raises ValueError: if the processes have different numbers of environments or other settings
    """
    assert model.env is not None
    numbers = world.all_gather(model.env.num_envs)
    if len(set(numbers)) > 1:
        listed = ", ".join(f"process {rank} has {number}" for rank, number in enumerate(numbers))
        raise ValueError(
            f"each process needs the same number of environments, but {listed}. {_WAY_OUT} from the number of all: "
            f"make_vec_env(env_id, n_envs={max(numbers) * world.size})"
        )
    settings = _settings(model) | {"total_timesteps": str(total_timesteps), "wrappers": _wrappers(model.env)}
    of_all = world.all_gather(settings)
    for name in settings:
        values = [settings_of_one.get(name, "missing") for settings_of_one in of_all]
        if len(set(values)) > 1:
            raise ValueError(f"the processes train one model, but their {name} differ: {', '.join(values)}. {_WAY_OUT}")


def _settings(model: BaseAlgorithm) -> dict[str, str]:
    """Return the model's arguments as texts that are the same in each process if the arguments are."""
    names = {name for base in type(model).__mro__ for name in inspect.signature(base).parameters} - _OF_A_PROCESS
    return {name: _text(getattr(model, name, None)) for name in sorted({*names, "num_timesteps"})}


def _wrappers(env: VecEnv | None) -> str:
    """Return the names of the wrappers around the environments, the outermost first, and how they normalise."""
    names = []
    for wrapper in wrappers_of(env):
        flags = ("training", "norm_obs", "norm_reward") if isinstance(wrapper, VecNormalize) else ()
        names.append(f"{type(wrapper).__name__}{({name: getattr(wrapper, name) for name in flags}) or ''}")
    return str(names)


def check_hooks(hooks: Sequence[object], world: World) -> None:
    """:raises ValueError: if a callback that all processes need, such as ``TrainingCheckpoint``, is not in each of them"""
    of_all = world.all_gather(sorted(type(hook).__name__ for hook in hooks))
    for rank, names in enumerate(of_all):
        if names != of_all[0]:
            raise ValueError(
                f"process 0 has the callbacks {of_all[0]} and process {rank} has {names}, but these gather the state of all "
                "processes: give them to each process; they write files in the first one only"
            )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str({key: _text(part) for key, part in value.items()})
    if isinstance(value, (list, tuple)):
        return str([_text(part) for part in value])
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    # The text of a function has its address
    return repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def check_seeds(env: VecEnv, world: World) -> None:
    """:raises ValueError: if two environments of different processes have the same random state, as after equal seeds"""
    try:
        streams = env.get_attr("np_random")
        own = [hashlib.sha256(pickle.dumps(one.bit_generator.state)).hexdigest() for one in streams]
    except Exception:
        # A VecEnv that gives no access to its environments, or an environment without a generator of gymnasium's
        own = []
    owners: dict[str, int] = {}
    for rank, digests in enumerate(world.all_gather(own)):
        for digest in digests:
            other = owners.setdefault(digest, rank)
            if other != rank:
                raise ValueError(
                    f"processes {other} and {rank} have environments with the same random state, so that they would play the "
                    f"same episodes. Give VPG a seed, or seed each environment by its index among those of all processes: "
                    "env.seed(seed + sb3_vpg.distributed.get_rank() * env.num_envs), as sb3_vpg.distributed.make_vec_env does"
                )


def check_policy(policy: BasePolicy, is_lean: bool) -> None:
    """See ``World.check_policy``. :raises ValueError: as it says"""
    if not is_lean:
        raise ValueError(
            f"{type(policy).__name__} does not act under torchrun, because its actions are drawn from torch's global random "
            "stream, and would depend on the number of processes. gSDE, recurrent policies, policies that override SB3's "
            "methods and a rollout_buffer_class of your own need a single process: start the program without torchrun"
        )
    for name, module in policy.named_modules():
        if isinstance(module, (_BatchNorm, *_DROPOUTS)):
            raise ValueError(
                f"{name} of the policy is a {type(module).__name__}, whose result depends on the other steps of a process "
                "or on torch's global random stream: under torchrun the processes would not train the same model. Use "
                "LayerNorm, or start the program without torchrun"
            )


def broadcast_state(model: BaseAlgorithm, world: World) -> None:
    """Give all processes the weights, the optimisers' states and the random stream of the first one's model."""
    first: Any = None
    if world.is_main_process:
        # Tensors of a GPU are not copied to the GPU of another process
        file = io.BytesIO()
        th.save(model.get_parameters(), file)
        first = file.getvalue(), {name: getattr(model, name, None) for name in ("_rng", "_average_return")}
    content, attributes = world.broadcast(first)
    if world.is_main_process:
        return
    parameters = th.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    model.set_parameters(parameters, device=model.device)
    for name, value in attributes.items():
        setattr(model, name, value)
