"""``sb3-vpg evaluate``: the score of a trained agent with its uncertainty, and the learning curve of its run."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_sb3 import EnvironmentName
from rl_zoo3 import ALGOS
from scipy.stats import t as student
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_vpg.zoo.agents.flags import N_ENVS, evaluate_parser
from sb3_vpg.zoo.agents.learning_curve import draw_learning_curve
from sb3_vpg.zoo.agents.masked_play import with_masks
from sb3_vpg.zoo.agents.play_env import create_env_of_run, saved_argument
from sb3_vpg.zoo.agents.trained_agents import find_model
from sb3_vpg.zoo.registration import register


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
    model_path, run = find_model(folder, algo, env_id, exp_id, load_best)
    env = create_env_of_run(env_id, model_path, min(N_ENVS[vec_env], n_episodes), seed, vec_env)
    # Playing needs no replay buffer; one of the saved size could fill the memory
    small_buffer: dict[str, Any] = {"buffer_size": 1} if issubclass(ALGOS[algo], OffPolicyAlgorithm) else {}
    model = ALGOS[algo].load(model_path, device=device, **small_buffer)
    player = with_masks(model, env)
    returns, lengths = evaluate_policy(player, env, n_episodes, deterministic=deterministic, return_episode_rewards=True)
    env.close()
    return Evaluation(
        model_path,
        run,
        np.asarray(returns),
        np.asarray(lengths),
        model.num_timesteps,
        seed,
        env.num_envs,
        deterministic,
        datetime.now().isoformat(timespec="seconds"),
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
    trained_with = saved_argument(result.run / EnvironmentName(args.env), "seed")
    picture = Path(args.output_folder or result.run) / "learning_curve.png"
    try:
        curve = draw_learning_curve(result.run, f"{args.algo.upper()} on {args.env}, seed {trained_with}", picture)
        print(f"Learning curve: {curve if curve is not None else 'none, the run has no monitor files'}")
    except ValueError as error:
        # A damaged curve does not fail the command, which has printed the score
        print(f"Learning curve: none, {error}")
