"""``sb3-vpg evaluate``: the score of a trained agent with its uncertainty, and the learning curve of its run."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_sb3 import EnvironmentName
from rl_zoo3 import ALGOS, get_saved_hyperparams
from rl_zoo3.utils import get_model_path
from scipy.stats import t as student
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vpg.zoo.agents.flags import N_ENVS, evaluate_parser
from sb3_vpg.zoo.agents.learning_curve import draw_learning_curve
from sb3_vpg.zoo.agents.masked_play import with_masks
from sb3_vpg.zoo.agents.play_env import create_gym_vec_test_env, create_test_env
from sb3_vpg.zoo.agents.trained_agents import no_run_message
from sb3_vpg.zoo.flags import VECTOR_MODES
from sb3_vpg.zoo.own_modules import check_registered, import_modules_of
from sb3_vpg.zoo.registration import register
from sb3_vpg.zoo.safe_yaml import read_yaml


@dataclass(frozen=True)
class Evaluation:
    """
    The score of a model, and how it was measured.

    :param model: the file that was evaluated
    :param run: the folder of its run
    :param returns: undiscounted return of each episode, shape (n_episodes,)
    :param lengths: steps of each episode, shape (n_episodes,)
    :param num_timesteps: environment steps that the model was trained for
    :param seed: of the first environment; each further environment adds 1
    :param n_envs: number of environments that played in parallel
    :param deterministic: whether the likeliest actions were taken instead of sampled ones
    :param when: local date and time, in ISO format
    """

    model: Path
    run: Path
    returns: np.ndarray
    lengths: np.ndarray
    num_timesteps: int
    seed: int
    n_envs: int
    deterministic: bool
    when: str

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the episodes' returns, with divisor n as in SB3; not the standard error of the mean."""
        return float(self.returns.std())

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % confidence interval of the mean return, over this agent's episodes; infinite after a single one."""
        n = len(self.returns)
        if n == 1:
            return -np.inf, np.inf
        error = float(self.returns.std(ddof=1)) / np.sqrt(n)
        # scipy returns NaN for a scale of 0
        low, high = student.interval(0.95, n - 1, self.mean, error) if error > 0 else (self.mean, self.mean)
        return float(low), float(high)

    @property
    def how(self) -> str:
        """Number of episodes, choice of actions, environments and seed, in words."""
        actions = "deterministic" if self.deterministic else "sampled"
        spread = f"in {self.n_envs} environments seeded from {self.seed} on"
        return f"{len(self.returns)} episodes with {actions} actions, {spread}"


def evaluate_run(
    folder: str,
    algo: str,
    env_id: str,
    exp_id: int = 0,
    n_episodes: int = 100,
    seed: int = 0,
    load_best: bool = False,
    deterministic: bool = True,
    device: str = "auto",
    vec_env: str = "dummy",
) -> Evaluation:
    """
    Play complete episodes with a model that ``train`` has written, in the environment that it was trained in.

    :param folder: log folder, the ``-f`` of ``train``
    :param algo: the algorithm's name on the command line
    :param env_id: environment id
    :param exp_id: number of the run, 0 for the latest
    :param n_episodes: number of episodes. Each of several environments plays a fixed share, so that short episodes are not
        preferred
    :param seed: of the environments
    :param load_best: take the best model of the training's evaluations instead of the last
    :param deterministic: take the likeliest action instead of sampling
    :param device: PyTorch device of the policy
    :param vec_env: ``"dummy"``, ``"native"`` for gymnasium's vector environment, or ``"envpool"`` for EnvPool's
    :return: the score
    :raises ValueError: if there is no such run, if it has no such model, or if the environment does not support ``vec_env``
    """
    register()
    env_name = EnvironmentName(env_id)
    try:
        _, model_path, run = get_model_path(exp_id, folder, algo, env_name, load_best)
    except AssertionError as error:
        raise ValueError(no_run_message(error, algo, env_name)) from None
    import_modules_of(Path(run) / env_name)
    check_registered(env_id)
    env = _environment(env_name, Path(model_path), n_episodes, seed, vec_env)
    # Playing needs no replay buffer; one of the saved size could fill the memory
    small_buffer: dict[str, Any] = {"buffer_size": 1} if issubclass(ALGOS[algo], OffPolicyAlgorithm) else {}
    model = ALGOS[algo].load(model_path, device=device, **small_buffer)
    player = with_masks(model, env)
    returns, lengths = evaluate_policy(player, env, n_episodes, deterministic=deterministic, return_episode_rewards=True)
    env.close()
    return Evaluation(
        Path(model_path),
        Path(run),
        np.asarray(returns),
        np.asarray(lengths),
        model.num_timesteps,
        seed,
        env.num_envs,
        deterministic,
        datetime.now().isoformat(timespec="seconds"),
    )


def _environment(env_name: EnvironmentName, model: Path, n_episodes: int, seed: int, vec_env: str) -> VecEnv:
    """Return the environment that a model was trained in, with the statistics of its ``VecNormalize``."""
    settings = model.parent / env_name
    hyperparams, stats_path = get_saved_hyperparams(str(settings), test_mode=True)
    create = partial(create_gym_vec_test_env, vec_env) if vec_env in VECTOR_MODES else create_test_env
    return create(
        env_name.gym_id,
        n_envs=min(N_ENVS[vec_env], n_episodes),
        stats_path=stats_path,
        seed=seed,
        should_render=False,
        hyperparams=hyperparams,
        env_kwargs=_saved_argument(settings, "env_kwargs"),
        model=model,
        vec_env_cls=DummyVecEnv,
    )


def evaluate() -> None:
    """Run the command ``evaluate`` with the arguments in ``sys.argv``."""
    args = evaluate_parser().parse_args()
    how = {"load_best": args.load_best, "deterministic": not args.stochastic, "device": args.device, "vec_env": args.vec_env}
    result = evaluate_run(args.folder, args.algo, args.env, args.exp_id, args.n_eval_episodes, args.seed, **how)
    low, high = result.interval
    # Tenths are too coarse for episodes that return 0 or 1
    form = ".1f" if np.abs(result.returns).max() >= 10 else ".3f"
    print(
        f"Return over {len(result.returns)} episodes, {'sampled' if args.stochastic else 'deterministic'} actions: "
        f"mean {result.mean:{form}} (95 % interval {low:{form}} to {high:{form}}), "
        f"min {result.returns.min():{form}}, max {result.returns.max():{form}}\n"
        f"Model:          {result.model}\n"
        f"Logs:           {result.run}"
    )
    trained_with = _saved_argument(result.run / EnvironmentName(args.env), "seed")
    picture = Path(args.output_folder or result.run) / "learning_curve.png"
    try:
        curve = draw_learning_curve(result.run, f"{args.algo.upper()} on {args.env}, seed {trained_with}", picture)
        print(f"Learning curve: {curve if curve is not None else 'none, the run has no monitor files'}")
    except ValueError as error:
        # A damaged curve does not fail the command, which has printed the score
        print(f"Learning curve: none, {error}")


def _saved_argument(settings: Path, name: str) -> Any:
    """Return a value of the run's ``args.yml``; None if the file or the value is missing."""
    file = settings / "args.yml"
    return read_yaml(file).get(name) if file.is_file() else None
