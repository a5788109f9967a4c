"""Vector environments without single environments for the zoo's programs: ``--vec-env native`` and ``--vec-env envpool``."""

from typing import Any

from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env


def make_vector_env(
    mode: str,
    env_id: str,
    make_env: object,
    n_envs: int,
    *,
    wrapper_class: object = None,
    vec_env_cls: object = None,
    vec_env_kwargs: object = None,
    env_kwargs: dict[str, Any] | None = None,
    **others: Any,
) -> GymVecEnv:
    """
    Replaces SB3's ``make_vec_env`` in the zoo's programs. Arguments that only concern single environments are ignored.

    :param mode: one of ``VECTOR_MODES``
    :raises ImportError: if EnvPool is to be used, but is not installed
    :raises ValueError: if there is an ``env_wrapper``, a window or a number of threads, or if the environment does not support
        the mode
    """
    if wrapper_class is not None:
        raise ValueError(
            f"env_wrapper wraps single environments, but --vec-env {mode} has none of {env_id}; leave out the flag, or use a "
            "vec_env_wrapper instead"
        )
    if (env_kwargs or {}).get("render_mode") == "human":
        raise ValueError(f"--vec-env {mode} opens no window; add --no-render, or leave out --vec-env {mode}")
    if "num_threads" in (env_kwargs or {}):
        raise ValueError(
            "the env_kwargs of a run are also those of gymnasium's environment, which has no num_threads; restrict the "
            "process instead: taskset -c 0-3 sb3-vpg ..."
        )
    return make_vec_env(env_id, n_envs, env_kwargs=env_kwargs, vectorization_mode=mode, **others)
