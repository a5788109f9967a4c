"""
From random weights to a policy gradient on CartPole: the four steps of a notebook, each as one command.

    python examples/random_weights_notebook.py random     # draw weights until an episode lasts 200 steps
    python examples/random_weights_notebook.py network    # a 2-4-2 network: fit two labels first, then train it with VPG
    python examples/random_weights_notebook.py epsilon    # a schedule of the entropy bonus: explore much, then less
    python examples/random_weights_notebook.py sparse     # reward 1 for surviving all 200 steps, and 0 for everything else
    python examples/random_weights_notebook.py all        # one after the other

Each command prints a table and writes charts of its runs (episode length, loss, exploration) to
logs/random_weights_notebook. --quick only checks that it runs; its numbers mean nothing.

The task is CartPole-v0, where an episode lasts at most 200 steps. Gymnasium calls CartPole-v0 out of date; CartPole-v1 with a
time limit of 200 steps is the same task.
"""

import argparse
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from matplotlib.figure import Figure
from scipy.stats import t as student
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn
from torch.nn import functional as F

from sb3_vpg import VPG, RandomSearch
from sb3_vpg.wrappers import SurvivalReward

LENGTH = 200
WIDTH = 20  # of the charts' moving means
LAST = 50  # training episodes, or updates, that count as the end of a run
make_env = partial(gym.make, "CartPole-v1", max_episode_steps=LENGTH)


@dataclass(frozen=True)
class Plan:
    """How much to run, and the folder for the charts."""

    folder: Path
    n_seeds: int = 5
    n_searches: int = 100
    n_updates: int = 475  # in which epsilon falls from 1.0 to 0.05
    n_test_episodes: int = 50


class History(BaseCallback):
    """Records the length of every episode, and the loss and entropy of every update."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self.losses: list[float] = []
        self.entropies: list[float] = []

    def _on_step(self) -> bool:
        self.lengths += [info["episode"]["l"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _record_update(self) -> None:
        logged = self.logger.name_to_value
        if "train/policy_gradient_loss" in logged:
            self.losses.append(logged["train/policy_gradient_loss"])
            self.entropies.append(-logged["train/entropy_loss"])

    # An update takes place between two rollouts, the last one at the end of training
    _on_rollout_start = _record_update
    _on_training_end = _record_update


def draw_chart(history: History, title: str, file: Path) -> None:
    """Draw panels for episode length, loss and exploration; a run without updates has only the first."""
    panels = [(f"episode length (of {LENGTH})", "episode", history.lengths)]
    if history.losses:
        panels += [("policy loss", "update", history.losses), ("exploration: entropy (nats)", "update", history.entropies)]
    figure = Figure(figsize=(7.0, 0.8 + 2.2 * len(panels)), layout="constrained")
    figure.suptitle(title)
    for axes, (name, unit, values) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        axes.plot(np.arange(1, len(values) + 1), values, ".", color="0.7", markersize=3, label=f"each {unit}")
        if len(values) >= WIDTH:
            means = np.convolve(values, np.full(WIDTH, 1 / WIDTH), mode="valid")
            axes.plot(np.arange(WIDTH, len(values) + 1), means, color="C0", label=f"mean of {WIDTH}")
        axes.set(xlabel=unit, ylabel=name)
        axes.legend(loc="best", fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def mean_and_interval(values: Sequence[float]) -> str:
    """:return: the mean over independent runs, with Student's 95 % interval"""
    mean, n = np.mean(values), len(values)
    margin = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return f"{mean:.1f} ({mean - margin:.1f} to {mean + margin:.1f})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        print(f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |")


def episodes_until_solved(seed: int) -> int:
    """Play with four new random weights ``w`` per episode: push right if ``w @ state > 0``. :return: number of episodes"""
    # With the seed of the environment, weights and first states would be equal numbers
    env, generator = make_env(), np.random.default_rng(10_000 + seed)
    observation, _ = env.reset(seed=seed)
    n_episodes, solved = 0, False
    while not solved:
        n_episodes += 1
        weights = generator.uniform(-1, 1, size=4)
        over = False
        while not over:
            observation, _, terminated, truncated, _ = env.step(int(weights @ observation > 0))
            over = terminated or truncated
        solved = truncated and not terminated
        observation, _ = env.reset()
    return n_episodes


def search(seed: int, history: History | None = None, wrapper: Callable[[gym.Env], gym.Env] = lambda env: env) -> RandomSearch:
    """Run the same agent as ``RandomSearch``, stopped by the notebook's rule: one episode of full length."""
    rule = {"stop_at_full_length": True, "reward_threshold": float("inf")}
    model = RandomSearch("LinearPolicy", make_vec_env(make_env, seed=seed, wrapper_class=wrapper), seed=seed, **rule)
    return model.learn(10**6, callback=history)


def length_afterwards(model: VPG | RandomSearch, plan: Plan) -> float:
    """:return: mean length of new episodes without exploration; in CartPole it equals the return that ``Monitor`` records"""
    return float(evaluate_policy(model, make_vec_env(make_env, n_envs=10, seed=1000), plan.n_test_episodes)[0])


def run_random(plan: Plan) -> None:
    seeds = range(plan.n_searches)
    by_hand = [episodes_until_solved(seed) for seed in seeds]
    histories = [History() for _ in seeds]
    models = [search(seed, history) for seed, history in zip(seeds, histories, strict=True)]
    by_search = [len(history.lengths) for history in histories]
    afterwards = mean_and_interval([length_afterwards(model, plan) for model in models])
    longest = int(np.argmax(by_search))
    draw_chart(histories[longest], f"Random search, seed {longest}", plan.folder / f"random_seed{longest}.png")
    agents = [("the notebook's: sign of one vector", by_hand, ""), ("RandomSearch: argmax of two rows", by_search, afterwards)]
    print_table(
        f"Random weights: episodes until one lasts {LENGTH} steps, seeds 0 to {seeds[-1]}",
        ["agent", "mean (95 % interval)", "median", "most", "length of new episodes with the kept weights"],
        [[name, mean_and_interval(n), f"{np.median(n):.0f}", f"{max(n)}", length] for name, n, length in agents],
    )


def make_vpg(seed: int, wrapper: Callable[[gym.Env], gym.Env] = lambda env: env, **kwargs: Any) -> VPG:
    """
    :return: VPG with a linear actor: 4 inputs, layers of 2, 4 and 2 units without activations, a softmax, Adam with learning
        rate 0.01. SB3 has one ``activation_fn`` for actor and critic, so the critic is linear, too
    """
    network = {"net_arch": {"pi": [2, 4], "vf": [64, 64]}, "activation_fn": nn.Identity, "optimizer_class": th.optim.Adam}
    env = make_vec_env(make_env, n_envs=8, seed=seed, wrapper_class=wrapper)
    model = VPG("MlpPolicy", env, learning_rate=0.01, n_steps=16, policy_kwargs=network, seed=seed, **kwargs)
    initialise_as_keras(actor(model))
    return model


def actor(model: VPG) -> nn.Sequential:
    """:return: the network from observations to logits, made of the modules that VPG trains"""
    return nn.Sequential(*model.policy.mlp_extractor.policy_net, model.policy.action_net)


def initialise_as_keras(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def double_softmax_loss(logits: th.Tensor, labels: th.Tensor) -> th.Tensor:
    """
    The notebook's loss, which applies a softmax to the output of a softmax. Probabilities differ by at most 1, so this loss
    cannot fall below log(1 + 1/e) = 0.313. The network still learns the labels: with two labels each gradient has the right
    sign, and Adam compensates for its size.
    """
    return F.cross_entropy(F.softmax(logits, dim=1), labels)


def warm_up(network: nn.Sequential, loss: Callable[[th.Tensor, th.Tensor], th.Tensor], batch: th.Tensor) -> np.ndarray:
    """:return: loss and mean probability of the right label after 0, 1, ... 50 epochs, shape (51, 2)"""
    labels = th.tensor([0, 1])  # one-hot: [1, 0] and [0, 1]
    optimizer = th.optim.Adam(network.parameters(), lr=0.01)
    record = []
    for _ in range(51):
        logits = network(batch)
        value = loss(logits, labels)
        record.append((value.item(), F.softmax(logits, dim=1)[th.arange(2), labels].mean().item()))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return np.array(record)


def fit_two_labels(plan: Plan) -> None:
    """Fit with and without the double softmax, from the same weights, to the same batch of two random states."""
    network, doubles, singles = actor(make_vpg(0)), [], []
    for seed in range(plan.n_searches):
        th.manual_seed(seed)
        initialise_as_keras(network)
        batch = th.rand(2, 4)
        doubles.append(warm_up(deepcopy(network), double_softmax_loss, batch))
        singles.append(warm_up(deepcopy(network), F.cross_entropy, batch))
    epochs = np.hstack([np.mean(doubles, axis=0), np.mean(singles, axis=0)])
    print_table(
        f"Fitting two labels, mean over seeds 0 to {plan.n_searches - 1}: the notebook's double softmax and a single one",
        ["epoch", "double: loss", "double: P(right label)", "single: loss", "single: P(right label)"],
        [[f"{epoch}", *(f"{value:.3f}" for value in epochs[epoch])] for epoch in range(0, 51, 10)],
    )
    double, single = (f"{np.mean([record[-1, 1] > 0.9 for record in records]):.0%}" for records in (doubles, singles))
    print(f"\nP(right label) above 0.9 after 50 epochs: in {double} of the seeds with the double softmax, in {single} without")


def epsilon(updates: float) -> float:
    """
    The notebook's schedule, which falls from 1.0 to 0.05 by 0.002 per update. The notebook never uses it: its agent always
    acts at random. A policy gradient explores with its policy, so here the schedule is the weight of the entropy bonus.
    """
    return max(0.05, 1.0 - 0.002 * updates)


@cache  # several commands show the first variant as a reference
def train(name: str, plan: Plan) -> list[str]:
    """Train a variant with every seed and draw its charts. :return: a row of the table"""
    variants: dict[str, dict[str, Any]] = {
        "dense reward": {},
        "dense reward, epsilon as ent_coef": {"ent_coef": lambda remaining: epsilon(plan.n_updates * (1.0 - remaining))},
        "sparse reward": {"wrapper": SurvivalReward},
        "sparse reward, no critic": {"wrapper": SurvivalReward, "baseline": "none"},
    }
    trained, tested, entropies = [], [], []
    for seed in range(plan.n_seeds):
        history, model = History(), make_vpg(seed, **variants[name])
        model.learn(plan.n_updates * model.n_steps * model.n_envs, callback=history, log_interval=None)
        title = f"VPG, 2-4-2, {name}, seed {seed}"
        draw_chart(history, title, plan.folder / f"{title.replace(',', '').replace(' ', '_')}.png")
        trained.append(float(np.mean(history.lengths[-LAST:])))
        tested.append(length_afterwards(model, plan))
        entropies.append(float(np.mean(history.entropies[-LAST:])))
    each = " ".join(f"{test:.0f}" for test in tested)
    return [name, mean_and_interval(trained), f"{np.mean(entropies):.2f}", mean_and_interval(tested), each]


def compare(title: str, names: Sequence[str], plan: Plan, *extra_rows: Sequence[str]) -> None:
    print_table(
        f"{title}: episode lengths, seeds 0 to {plan.n_seeds - 1}, {plan.n_updates} updates",
        ["VPG with", f"last {LAST} of training", "entropy", f"{plan.n_test_episodes} new episodes", "of each seed"],
        [*(train(name, plan) for name in names), *extra_rows],
    )


def run_network(plan: Plan) -> None:
    """Fit two labels, then train with VPG from new weights, as the two labels do not teach balancing."""
    fit_two_labels(plan)
    compare("The 2-4-2 network", ["dense reward"], plan)


def run_epsilon(plan: Plan) -> None:
    compare("A schedule for exploration", ["dense reward", "dense reward, epsilon as ent_coef"], plan)


def run_sparse(plan: Plan) -> None:
    """
    Until an episode happens to last 200 steps, all rewards are 0, so the policy gradient is 0. Without a critic VPG does not
    change its weights; with one it follows the errors of the untrained critic. Random search needs only one success.
    """
    tests = [length_afterwards(search(seed, wrapper=SurvivalReward), plan) for seed in range(plan.n_seeds)]
    random_search = ["(random search)", "", "", mean_and_interval(tests), " ".join(f"{test:.0f}" for test in tests)]
    compare("1 for surviving, else 0", ["dense reward", "sparse reward", "sparse reward, no critic"], plan, random_search)


STEPS = {"random": run_random, "network": run_network, "epsilon": run_epsilon, "sparse": run_sparse}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, "all"])
    parser.add_argument("--quick", action="store_true", help="check in seconds that it runs")
    parser.add_argument("--folder", type=Path, default=Path("logs/random_weights_notebook"), help="folder for the charts")
    args = parser.parse_args(arguments)
    plan = Plan(args.folder, n_seeds=2, n_searches=3, n_updates=4, n_test_episodes=10) if args.quick else Plan(args.folder)
    for name in STEPS if args.step == "all" else [args.step]:
        STEPS[name](plan)
    print(f"\nCharts: {plan.folder}")


if __name__ == "__main__":
    main()
