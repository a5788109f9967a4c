"""What stands on the page of an agent on the hub: what it scored and how that was measured, and how to use it."""

import shlex
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import yaml
from huggingface_sb3 import EnvironmentName

from sb3_vpg.zoo import DEFAULT, OURS

_PLAIN = """from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_vpg import {cls}

model = {cls}.load("{file}")
print(evaluate_policy(model, make_vec_env("{env}"{kwargs}), n_eval_episodes=10))"""
_NORMALIZED = """from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_vpg import {cls}
from sb3_vpg.normalization import load_vec_normalize

model = {cls}.load("{file}")
env = load_vec_normalize("{file}", make_vec_env("{env}"{kwargs}))
env.training = env.norm_reward = False
print(evaluate_policy(model, env, n_eval_episodes=10))"""


@dataclass(frozen=True)
class Score:
    """
    :param mean: undiscounted return
    :param std: standard deviation over episodes
    :param n_episodes: that were played to their end
    :param deterministic: the likeliest actions instead of sampled ones
    :param seed: of the environments
    :param steps: environment steps of its training
    """

    mean: float
    std: float
    n_episodes: int
    deterministic: bool
    seed: int
    steps: int

    @property
    def how(self) -> str:
        actions = "deterministic" if self.deterministic else "sampled"
        return f"{self.n_episodes} episodes, {actions} actions, environments seeded with {self.seed}"


def metadata(algo: str, env_id: str, score: Score) -> dict[str, Any]:
    """:return: the head of the card, as the hub reads it"""
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": env_id, "type": env_id},
        "metrics": [
            {"type": "mean_reward", "value": f"{score.mean:.2f} +/- {score.std:.2f}", "name": "mean_reward", "verified": False}
        ],
    }
    return {
        "library_name": "stable-baselines3",
        "tags": [env_id, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-vpg", algo],
        "model-index": [{"name": OURS[algo], "results": [result]}],
    }


def card(algo: str, env_id: str, repo_id: str, score: Score, config: dict[str, Any], install: str) -> str:
    """
    :param algo: name on the command line
    :param env_id: environment id
    :param repo_id: organization and name of the repository
    :param score: measured
    :param config: hyperparameters
    :param install: what pip installs sb3-vpg from
    :return: the page, in Markdown
    """
    head = yaml.safe_dump(metadata(algo, env_id, score), sort_keys=False)
    organization, _, name = repo_id.partition("/")
    env_name = EnvironmentName(env_id)
    flags = f"--env {env_id}" if algo == DEFAULT else f"--algo {algo} --env {env_id}"
    named = "" if name == f"{algo}-{env_name}" else f" -name {name}"
    libraries = ", ".join(f"{one} {version(one)}" for one in ("sb3-vpg", "stable-baselines3", "gymnasium", "torch"))
    cls = OURS[algo]
    settings = yaml.safe_dump(config, sort_keys=True).strip()
    snippet = _NORMALIZED if config.get("normalize") else _PLAIN
    kwargs = f", env_kwargs={config['env_kwargs']}" if config.get("env_kwargs") else ""
    usage = snippet.format(cls=cls, kwargs=kwargs, file=f"logs/{algo}/{env_name}_1/{env_name}.zip", env=env_id)
    return f"""---
{head}---

# {cls} on {env_id}

A trained **{cls}** agent playing **{env_id}**, made with sb3-vpg: vanilla policy gradient for
[Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3) and the
[RL Zoo](https://github.com/DLR-RM/rl-baselines3-zoo).

Mean return **{score.mean:.2f} ± {score.std:.2f}** after {score.steps:,} steps of training: {score.how}; ± is the
standard deviation over episodes. Measured with {libraries}.

## Usage

The RL Zoo alone does not know this algorithm. Install sb3-vpg, which brings the zoo with it:

```bash
pip install {shlex.quote(install)}
```

Download the agent into `logs/` and watch it (`--no-render` without a screen), or score it:

```bash
sb3-vpg load_from_hub {flags} -orga {organization}{named} -f logs
sb3-vpg enjoy {flags} -f logs
sb3-vpg evaluate {flags} -f logs
```

Nothing of this repository is unpickled and none of its texts is run as code. In Python, after the download (with the
number that it printed, if there were other runs before):

```python
{usage}
```

## Training

```bash
sb3-vpg train {flags} -f logs
```

Hyperparameters:

```yaml
{settings}
```
"""
