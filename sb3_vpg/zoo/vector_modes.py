"""``--vec-env native`` and ``envpool``: in the zoo's programs, one ``GymVecEnv`` steps all environments."""

from typing import Any

from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env


def make_gym_vec_env(
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
    :raises ValueError: if there is an ``env_wrapper``, a window or ``num_threads``, or if the environment does not support the
        mode
    """
    if wrapper_class is not None:
        raise ValueError(
            f"env_wrapper wraps a gymnasium.Env, but --vec-env {mode} steps all environments of {env_id} in one object; use a "
            f"vec_env_wrapper, or leave out --vec-env {mode}"
        )
    if (env_kwargs or {}).get("render_mode") == "human":
        raise ValueError(
            f"--vec-env {mode} opens no window; add --no-render (enjoy), or leave out render_mode or --vec-env {mode}"
        )
    if mode == "envpool" and "num_threads" in (env_kwargs or {}):
        raise ValueError(
            "num_threads cannot be given in env_kwargs, because gymnasium's environment gets them too. EnvPool uses one "
            "thread for each core of the process; taskset -c 0-3 sb3-vpg ... allows four"
        )
    return make_vec_env(env_id, n_envs, env_kwargs=env_kwargs, vectorization_mode=mode, **others)
