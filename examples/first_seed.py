"""
From a REINFORCE loop in NumPy to the arguments of VPG.

The loop this project grew from learns CartPole-v0 with eight weights ``w``, shape (4, 2): the state times ``w`` gives two
numbers, their softmax the probabilities of left and right. After every episode it does

    for e in range(len(grads)):
        w += LR * grads[e] * sum(r * GAMMA**r for t, r in enumerate(rewards[e:]))

where ``grads[e]`` is the gradient of the log-probability of the action that was taken in step e. The function ``loop``
says which line became which argument.

``GAMMA**r`` is a slip of the pen for ``GAMMA**t``: every reward of CartPole is 1, so each is multiplied by 0.99 and none is
discounted. Both readings are here:

* ``stands``: the sum is 0.99 times the undiscounted return. A factor that all returns share passes through the gradient
  into the step, ``LR * (0.99 * G) = (0.99 * LR) * G``, so this is ``gamma=1`` with a learning rate of 0.99 * LR.
* ``intended``: the sum is the return discounted with 0.99 from step e on, which is ``gamma=0.99``. The loop has no factor
  ``GAMMA**e`` in front of it, so ``discount_steps`` stays False.

The third choice, ``ours``, is VPG with its defaults.

    python examples/first_seed.py train --reading stands --seed 1    # --episodes 20 for a glance
    python examples/first_seed.py train --reading ours --seed 1
    python examples/first_seed.py replay
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
SOLVED, WINDOW = 195.0, 100  # Gym's definition for CartPole-v0: the mean return of 100 episodes in a row

# Printed at the end of the loop's notebook, "from only 5000 iterations"; shape (4, 2)
PUBLISHED = np.array(
    [[1.06721556, 0.07013094], [-0.71238789, 1.01483483], [-1.22409825, 1.46319274], [-2.51589573, 3.04771667]]
)


class Run(NamedTuple):
    """
    :param solved: whether the criterion was met
    :param episodes: complete episodes until then, or until training stopped
    :param steps: steps of the environment in them
    :param last: mean return of the last 100 of them
    """

    solved: bool
    episodes: int
    steps: int
    last: float


def cartpole(n_envs: int = 1, seed: int | None = None) -> VecEnv:
    """CartPole-v0 ends after 200 steps. Gymnasium would like us to take v1, which ends after 500."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*CartPole-v0 is out of date", DeprecationWarning)
        return make_vec_env("CartPole-v0", n_envs, seed)


def set_weights(model: VPG, w: np.ndarray) -> None:
    """Make the policy ``softmax(state.dot(w))``: ``w`` has an action per column, ``nn.Linear`` has one per row."""
    layer: Any = model.policy.action_net
    with th.no_grad():
        layer.weight.copy_(th.as_tensor(w.T))
        layer.bias.zero_()
    layer.bias.requires_grad_(False)  # the loop has none, and VPG leaves a frozen parameter alone


def loop(reading: Reading, seed: int) -> VPG:
    """The NumPy loop; with ``seed=1`` it begins with the weights it had in the notebook."""
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
    """A network of 64-64, a critic for the baseline, Adam, and a step of the policy every 256 steps."""
    return VPG("MlpPolicy", cartpole(), seed=seed)


class UntilSolved(BaseCallback):
    """Stop as soon as the last 100 episodes have a mean return of 195, or after ``max_episodes``."""

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
            if "episode" in info:  # Monitor's word for an episode that has just ended
                self.returns.append(float(info["episode"]["r"]))
                if self.verbose and len(self.returns) % 500 == 0:
                    print(f"episode {len(self.returns)}: mean return of the last {WINDOW} is {self.last:.1f}", flush=True)
                if self.solved or len(self.returns) >= self.max_episodes:
                    return False
        return True


def train(reading: Reading, seed: int, max_episodes: int = NUM_EP, verbose: int = 0) -> Run:
    """Learn until the task counts as solved, with sampled actions as in the loop."""
    model = ours(seed) if reading == "ours" else loop(reading, seed)
    callback = UntilSolved(max_episodes, verbose)
    model.learn(200 * max_episodes, callback, log_interval=1000)
    # num_timesteps counts the steps of every environment, and there is one
    return Run(callback.solved, len(callback.returns), model.num_timesteps, callback.last)


def replay(n_episodes: int, deterministic: bool, seed: int = 0) -> np.ndarray:
    """
    Play with the published weights. The notebook's last cell draws every action for the state after the reset, because it
    never does ``state = statee``; here each action is drawn for the state it is taken in, as in its training.

    :return: the return of each episode, shape (n_episodes,)
    """
    model = loop("stands", seed)
    set_weights(model, PUBLISHED)
    env = cartpole(min(10, n_episodes), seed)
    returns, _ = evaluate_policy(model, env, n_episodes, deterministic=deterministic, return_episode_rewards=True)
    return np.array(returns)


def interval(returns: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean, which unlike Student's stays below the 200 that is possible."""
    means = np.random.default_rng(0).choice(returns, (10_000, len(returns))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="learn until the task is solved")
    training.add_argument("--reading", choices=get_args(Reading), default="stands", help="of the NumPy loop, or our defaults")
    training.add_argument("--seed", type=int, default=1)
    training.add_argument("--episodes", type=int, default=NUM_EP, help="give up after so many")
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
