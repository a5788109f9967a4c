"""What stands on the page of an agent on the hub: what it scored and how that was measured, and how to use it."""

import platform
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import gymnasium as gym
import yaml
from huggingface_sb3 import EnvironmentName, ModelName

from sb3_vpg.version import __version__
from sb3_vpg.zoo.agents.evaluation import Score
from sb3_vpg.zoo.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from sb3_vpg.zoo.hub.repository import Repository
from sb3_vpg.zoo.hub.usage_snippet import snippet

_LIBRARIES = ("stable-baselines3", "gymnasium", "torch", "numpy")
_EXTRAS = ("box2d", "mujoco")


@dataclass(frozen=True)
class Agent:
    """
    :param algo: name on the command line
    :param env_id: environment id
    :param repo_id: organization and name of the repository
    :param which: model of its run
    :param steps: environment steps of its training
    :param found: what the repository holds, as it is loaded
    :param config: hyperparameters, as they are written there
    """

    algo: str
    env_id: str
    repo_id: str
    which: str
    steps: int
    found: Repository
    config: dict[str, Any]


def versions() -> dict[str, str]:
    """:return: of what a score depends on"""
    libraries = {one: version(one) for one in _LIBRARIES}
    return {"sb3-vpg": __version__, **libraries, "python": platform.python_version()}


def metadata(agent: Agent, score: Score) -> dict[str, Any]:
    """:return: the head of the card, as the hub reads it"""
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": agent.env_id, "type": agent.env_id},
        "metrics": [
            {"type": "mean_reward", "value": f"{score.mean:.2f} +/- {score.std:.2f}", "name": "mean_reward", "verified": False}
        ],
    }
    tags = [agent.env_id, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-vpg", agent.algo]
    # The zoo's list of agents takes it in lower case for the algorithm
    name = ALGORITHMS[agent.algo] if ALGORITHMS[agent.algo].lower() == agent.algo else agent.algo
    return {"library_name": "stable-baselines3", "tags": tags, "model-index": [{"name": name, "results": [result]}]}


def card(agent: Agent, score: Score, install: str, gym_packages: Sequence[str] = ()) -> str:
    """
    :param agent: which one
    :param score: measured
    :param install: what pip installs sb3-vpg from
    :param gym_packages: modules that register the environment
    :return: the page, in Markdown
    """
    head = yaml.safe_dump(metadata(agent, score), sort_keys=False)
    words = [*([] if agent.algo == DEFAULT_ALGORITHM else ["--algo", agent.algo]), "--env", agent.env_id]
    where = ["-f", "logs", *(["--gym-packages", *gym_packages] if gym_packages else [])]
    train = [*words, *where, *(["--seed", str(agent.found.args["seed"])] if "seed" in agent.found.args else [])]
    program = snippet(agent.algo, agent.env_id, agent.repo_id, agent.found, score, gym_packages)
    return f"""---
{head}---

{_introduction(agent, score)}
{_usage(agent, score, install, words, where, program)}
## Training

```bash
sb3-vpg train {shlex.join(train)}
```

Hyperparameters:

```yaml
{yaml.safe_dump(agent.config, sort_keys=True).strip()}
```
"""


def _introduction(agent: Agent, score: Score) -> str:
    cls, low, high = ALGORITHMS[agent.algo], *score.interval
    return f"""# {cls} on {agent.env_id}

A trained **{cls}** agent playing **{agent.env_id}**, made with sb3-vpg: vanilla policy gradient for
[Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3) and the
[RL Zoo](https://github.com/DLR-RM/rl-baselines3-zoo).

Mean return **{score.mean:.2f} ± {score.std:.2f}** (95 % interval of the mean {low:.2f} to {high:.2f}; ± is the standard
deviation over episodes), after {agent.steps:,} steps of training.

| | |
|---|---|
| measured over | {score.how} |
| on | {score.when} |
| with | {", ".join(f"{one} {number}" for one, number in versions().items())} |
| model | {agent.which} |
"""


def _usage(agent: Agent, score: Score, install: str, words: list[str], where: list[str], program: str) -> str:
    """
    :param words: flags that name the agent
    :param where: flags that name its folder
    :param program: in Python
    """
    organization, _, name = agent.repo_id.partition("/")
    named = [] if name == ModelName(agent.algo, EnvironmentName(agent.env_id)) else ["-name", name]
    load, play = [*words, "-orga", organization, *named, *where], [*words, *where]
    sampled = "" if score.deterministic else " --stochastic"
    packages = where[where.index("--gym-packages") + 1 :] if "--gym-packages" in where else []
    names = " and ".join(f"`{one}`" for one in packages)
    modules = (
        f"\n{names}: keep the folder of each module on `PYTHONPATH`, or type `python -m sb3_vpg` in it.\n" if names else ""
    )
    return f"""## Usage

The RL Zoo alone does not know this algorithm. Install sb3-vpg, which brings the zoo with it:

```bash
pip install {shlex.quote(_requirement(install, agent.env_id))}
```

Download the agent into `logs/`, watch it (`--no-render` without a screen), score it:

```bash
sb3-vpg load_from_hub {shlex.join(load)}
sb3-vpg enjoy {shlex.join(play)}{sampled}
sb3-vpg evaluate {shlex.join(play)} -n {score.n_episodes} --seed {score.seed}{sampled}
```
{modules}
Nothing of this repository is unpickled, and none of its texts is run as code. In Python, which measures the number above:

```python
{program}
```
"""


def _requirement(install: str, env_id: str) -> str:
    """:return: with the extra that brings the environment's simulator, where there is one and pip is given a bare name"""
    entry_point = str(gym.spec(env_id).entry_point)
    extra = next((one for one in _EXTRAS if entry_point.startswith(f"gymnasium.envs.{one}")), None)
    return f"{install}[{extra}]" if extra is not None and re.fullmatch(r"[\w.-]+", install) else install
