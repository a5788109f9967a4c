"""The environments in which trained agents play."""

from functools import partial
from pathlib import Path
from typing import Any

from rl_zoo3 import create_test_env as create_test_env_of_the_zoo
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_vpg.normalization import has_statistics, load_vec_normalize
from sb3_vpg.zoo.native_vec_env import _make
from sb3_vpg.zoo.patching import exchanged


def create_native_test_env(env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
    """
    The zoo's ``create_test_env`` on a native vector environment.

    :raises ValueError: as ``NativeExperimentManager``, and for a ``render_mode`` that it does not have
    """
    with exchanged("rl_zoo3.utils:make_vec_env", partial(_make, env_id)):
        return create_test_env(env_id, *args, **kwargs)


def create_test_env(
    env_id: str,
    *,
    stats_path: str | None = None,
    hyperparams: dict[str, Any] | None = None,
    env_kwargs: dict[str, Any] | None = None,
    model: Path | None = None,
    **others: Any,
) -> VecEnv:
    """
    The zoo's function, which differs in two points:

    * a model that holds statistics of its own is played with these: ``vecnormalize.pkl`` has those of the run's end, which the
      best model and checkpoints have not seen. Where there is no such file, the model must hold them;
    * ``env_kwargs`` among the hyperparameters hold in ``record_video`` as well.

    :param env_id: environment id
    :param stats_path: the folder of a run's settings
    :param hyperparams: of the run
    :param env_kwargs: arguments of the environment, which win over those of the hyperparameters
    :param model: which is to play; None: the one at the end of the run
    :param others: see ``rl_zoo3.create_test_env``
    :return: the environment, with statistics that no longer change and rewards as they are
    :raises RefusedFileError: if the model holds no statistics
    """
    entry = dict(hyperparams or {})
    others["env_kwargs"] = {**(entry.pop("env_kwargs", None) or {}), **(env_kwargs or {})}
    settings = Path(stats_path or "")
    model = model or settings.parent / f"{settings.name}.zip"
    pickled = settings / "vecnormalize.pkl"
    if not entry.get("normalize") or stats_path is None or (pickled.is_file() and not has_statistics(model)):
        return create_test_env_of_the_zoo(env_id, stats_path=stats_path, hyperparams=entry, **others)
    plain = {**entry, "normalize": False, "frame_stack": 0}
    bare = create_test_env_of_the_zoo(env_id, stats_path=stats_path, hyperparams=plain, **others)
    env = load_vec_normalize(model, bare)
    env.training = env.norm_reward = False
    n_stack = entry.get("frame_stack", 0)
    return VecFrameStack(env, n_stack) if n_stack > 0 else env
