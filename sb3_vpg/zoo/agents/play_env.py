"""The environments in which trained agents play."""

from functools import partial
from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName
from rl_zoo3 import create_test_env as create_test_env_of_the_zoo
from rl_zoo3 import get_saved_hyperparams
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

from sb3_vpg.normalization import has_statistics, load_vec_normalize
from sb3_vpg.zoo.flags import VECTOR_MODES
from sb3_vpg.zoo.patching import patched
from sb3_vpg.zoo.safe_yaml import read_yaml
from sb3_vpg.zoo.vector_modes import make_gym_vec_env


def create_gym_vec_test_env(mode: str, env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
    """
    Return the zoo's test environment on a vector environment.

    :param mode: one of ``VECTOR_MODES``
    :raises ValueError: see ``make_gym_vec_env``; also for a ``render_mode`` that the environment does not have
    """
    with patched("rl_zoo3.utils:make_vec_env", partial(make_gym_vec_env, mode, env_id)):
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
    Return the zoo's test environment, with two differences:

    * A model that contains statistics of ``VecNormalize`` is played with these. ``vecnormalize.pkl`` has those of the end of
      the run, which do not fit the best model and checkpoints. It is used only for models without statistics.
    * ``env_kwargs`` among the hyperparameters are used; the zoo's ``record_video`` ignores them.

    :param env_id: environment id
    :param stats_path: the folder of a run's settings
    :param hyperparams: of the run
    :param env_kwargs: arguments of the environment, which override those of the hyperparameters
    :param model: path of the model that will play; None: the one at the end of the run
    :param others: see ``rl_zoo3.create_test_env``
    :return: the environment, with fixed statistics and without normalised rewards
    :raises RefusedFileError: if neither the model nor ``vecnormalize.pkl`` has the statistics
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


def create_env_of_run(env_id: str, model: Path, n_envs: int, seed: int, vec_env: str = "dummy") -> VecEnv:
    """
    Return the environment that a model was trained in, with the statistics of its ``VecNormalize``, and not rendered.

    :param env_id: environment id
    :param model: a model in the folder of its run
    :param n_envs: number of environments
    :param seed: of the first one
    :param vec_env: ``"dummy"`` or one of ``VECTOR_MODES``
    :raises ValueError: see ``create_gym_vec_test_env``
    """
    settings = model.parent / EnvironmentName(env_id)
    hyperparams, stats_path = get_saved_hyperparams(str(settings), test_mode=True)
    create = partial(create_gym_vec_test_env, vec_env) if vec_env in VECTOR_MODES else create_test_env
    return create(
        env_id,
        n_envs=n_envs,
        stats_path=stats_path,
        seed=seed,
        should_render=False,
        hyperparams=hyperparams,
        env_kwargs=saved_argument(settings, "env_kwargs"),
        model=model,
        vec_env_cls=DummyVecEnv,
    )


def saved_argument(settings: Path, name: str) -> Any:
    """Return a value of the run's ``args.yml``; None if the file or the value is missing."""
    file = settings / "args.yml"
    return read_yaml(file).get(name) if file.is_file() else None
