"""
A REINFORCE loop in NumPy, and the arguments of VPG that do the same.

This project began with a notebook that learns CartPole-v0 with eight weights ``w``, shape (4, 2). The softmax of ``state @ w``
gives the probabilities of left and right. After every episode the notebook does

    for e in range(len(grads)):
        w += LR * grads[e] * sum(r * GAMMA**r for t, r in enumerate(rewards[e:]))

where ``grads[e]`` is the gradient of the log-probability of the action in step e. The function ``loop`` shows which line
corresponds to which argument.

``GAMMA**r`` was probably meant to be ``GAMMA**t``: every reward of CartPole is 1, so each is multiplied by 0.99 and none is
discounted. Both readings are here:

* ``stands``: the code as written. The sum is 0.99 times the undiscounted return, and ``LR * (0.99 * G) = (0.99 * LR) * G``.
  So this is ``gamma=1`` with the learning rate 0.99 * LR.
* ``intended``: the sum is the return from step e on, discounted with 0.99. This is ``gamma=0.99``. The loop has no factor
  ``GAMMA**e``, so ``discount_steps`` is False.

The third choice, ``ours``, is VPG with its defaults.

    python examples/reinforce_notebook.py train --reading stands --seed 1    # --episodes 20 for a short run
    python examples/reinforce_notebook.py train --reading ours --seed 1
    python examples/reinforce_notebook.py replay
"""

import argparse
import warnings
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_vpg import VPG

Reading = Literal["stands", "intended", "ours"]
LR, GAMMA, NUM_EP = 0.000025, 0.99, 20_000
SOLVED, WINDOW = 195.0, 100  # Gym's definition for CartPole-v0: the mean return of 100 consecutive episodes

# The weights that the notebook prints, "from only 5000 iterations"; shape (4, 2)
PUBLISHED = np.array(
    [[1.06721556, 0.07013094], [-0.71238789, 1.01483483], [-1.22409825, 1.46319274], [-2.51589573, 3.04771667]]
)


class Run(NamedTuple):
    """
    :param solved: True if the task was solved
    :param episodes: complete episodes until training stopped
    :param steps: environment steps in these episodes
    :param last: mean return of the last 100 episodes
    """

    solved: bool
    episodes: int
    steps: int
    last: float


def cartpole(n_envs: int = 1, seed: int | None = None) -> VecEnv:
    """:return: CartPole-v0, whose episodes end after 200 steps, without gymnasium's warning that it is out of date"""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*CartPole-v0 is out of date", DeprecationWarning)
        return make_vec_env("CartPole-v0", n_envs, seed)


def set_weights(model: VPG, w: np.ndarray) -> None:
    """Set the policy to ``softmax(state.dot(w))``. ``w`` has a column for each action, ``nn.Linear`` a row."""
    layer: Any = model.policy.action_net
    with th.no_grad():
        layer.weight.copy_(th.as_tensor(w.T))
        layer.bias.zero_()
    layer.bias.requires_grad_(False)  # the loop has no bias, and VPG does not train frozen parameters


def loop(reading: Reading, seed: int) -> VPG:
    """:return: VPG as the NumPy loop; ``seed=1`` gives the notebook's initial weights"""
    model = VPG(
        "LinearPolicy",  # z = state.dot(w); exp(z) / sum(exp(z))
        cartpole(),
        n_episodes=1,  # if done: break, then w = update(w, ...): one step of w after each episode
        learning_rate=0.99 * LR if reading == "stands" else LR,
        gamma=1.0 if reading == "stands" else GAMMA,
        reward_to_go=True,  # sum(... rewards[e:]), not rewards
        discount_steps=False,  # no GAMMA**e
        baseline="none",  # nothing is subtracted from the sum
        normalize_advantage=False,
        max_grad_norm=float("inf"),  # nothing is clipped
        policy_kwargs={"optimizer_class": th.optim.SGD},  # w += LR * ..., where SB3's choice is Adam
        seed=seed,  # np.random.seed(1)
    )
    set_weights(model, np.random.RandomState(seed).rand(4, 2))  # w = np.random.rand(4, 2)
    return model


def ours(seed: int) -> VPG:
    """:return: VPG with its defaults: a 64-64 network, a critic as the baseline, Adam, a policy step every 256 steps"""
    return VPG("MlpPolicy", cartpole(), seed=seed)


class UntilSolved(BaseCallback):
    """Stop when the mean return of the last 100 episodes is 195, or after ``max_episodes``."""

    def __init__(self, max_episodes: int, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.max_episodes = max_episodes
        self.returns: list[float] = []

    @property
    def last(self) -> float:
        return float(np.mean(self.returns[-WINDOW:]))

    @property
    def solved(self) -> bool:
        return len(self.returns) >= WINDOW and self.last >= SOLVED

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:  # Monitor sets this when an episode ends
                self.returns.append(float(info["episode"]["r"]))
                if self.verbose and len(self.returns) % 500 == 0:
                    print(f"episode {len(self.returns)}: mean return of the last {WINDOW} is {self.last:.1f}", flush=True)
                if self.solved or len(self.returns) >= self.max_episodes:
                    return False
        return True


def train(reading: Reading, seed: int, max_episodes: int = NUM_EP, verbose: int = 0) -> Run:
    """Train with sampled actions, as in the loop, until the task is solved."""
    model = ours(seed) if reading == "ours" else loop(reading, seed)
    callback = UntilSolved(max_episodes, verbose)
    model.learn(200 * max_episodes, callback, log_interval=1000)
    # num_timesteps counts the steps of every environment, and there is one
    return Run(callback.solved, len(callback.returns), model.num_timesteps, callback.last)


def replay(n_episodes: int, deterministic: bool, seed: int = 0) -> np.ndarray:
    """
    Play with the published weights. The notebook's last cell never updates ``state``, so it draws every action for the first
    state. Here each action is drawn for the current state, as in the notebook's training.

    :return: the return of each episode, shape (n_episodes,)
    """
    model = loop("stands", seed)
    set_weights(model, PUBLISHED)
    env = cartpole(min(10, n_episodes), seed)
    returns, _ = evaluate_policy(model, env, n_episodes, deterministic=deterministic, return_episode_rewards=True)
    return np.array(returns)


def interval(returns: np.ndarray) -> tuple[float, float]:
    """:return: the 95 % bootstrap interval of the mean; unlike Student's, it does not exceed the maximum of 200"""
    means = np.random.default_rng(0).choice(returns, (10_000, len(returns))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train until the task is solved")
    training.add_argument(
        "--reading", choices=get_args(Reading), default="stands", help="a reading of the NumPy loop, or VPG's defaults"
    )
    training.add_argument("--seed", type=int, default=1)
    training.add_argument("--episodes", type=int, default=NUM_EP, help="stop after this many episodes (default: %(default)s)")
    playing = commands.add_parser("replay", help="play with the published weights")
    playing.add_argument("--seed", type=int, default=0)
    playing.add_argument("--episodes", type=int, default=100)
    args = parser.parse_args(arguments)

    if args.command == "train":
        run = train(args.reading, args.seed, args.episodes, verbose=1)
        verdict = "solved" if run.solved else "not solved"
        print(f"{verdict} after {run.episodes} episodes ({run.steps} steps), the last {WINDOW} with a mean of {run.last:.1f}")
        return
    for deterministic, name in ((False, "sampled"), (True, "deterministic")):
        returns = replay(args.episodes, deterministic, args.seed)
        low, high = interval(returns)
        at_best = int((returns == 200).sum())
        print(
            f"{name} actions: mean return {returns.mean():.1f} (95 % interval {low:.1f} to {high:.1f}) "
            f"over {len(returns)} episodes, {at_best} of them with 200"
        )


if __name__ == "__main__":
    main()
