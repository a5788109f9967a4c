"""Gymnasium's own vector environments for the zoo's programs."""

from typing import Any

from sb3_vpg.vec_env.gym_vec_env import GymVecEnv, make_vec_env


def make_native_vec_env(
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

    :raises ValueError: if there is an ``env_wrapper`` or a window, or if the environment has no native vector environment
    """
    if wrapper_class is not None:
        raise ValueError(
            f"env_wrapper wraps single environments, but the native vector environment of {env_id} has none; leave "
            "out --vec-env native, or use a vec_env_wrapper instead"
        )
    if (env_kwargs or {}).get("render_mode") == "human":
        raise ValueError("a native vector environment opens no window; add --no-render, or leave out --vec-env native")
    return make_vec_env(env_id, n_envs, env_kwargs=env_kwargs, vectorization_mode="native", **others)
