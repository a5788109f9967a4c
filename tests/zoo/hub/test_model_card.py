"""The page of an agent: the metadata that the hub reads, and the commands for the agent's environment."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_vpg.envs import ENV_IDS
from sb3_vpg.zoo.agents.evaluation import Evaluation
from sb3_vpg.zoo.hub.model_card import CardSubject, card
from sb3_vpg.zoo.hub.repository import Repository


def rendered(algo: str = "vpg", env_id: str = "CartPole-v1", deterministic: bool = True, **others: Any) -> str:
    """The page of an agent with the returns 480 and 500."""
    returns = np.array([480.0, 500.0])
    score = Evaluation(Path(), Path(), returns, returns, 102_400, 7, 2, deterministic, "2026-11-30T10:00:00")
    repository = Repository(Path(), {}, {"seed": 4}, {}, [], {})
    subject = CardSubject(algo, env_id, f"me/{algo}-{env_id}", "a checkpoint", repository, {"policy": "MlpPolicy"})
    return card(subject, score, "sb3-vpg", **others)


@pytest.mark.parametrize(("algo", "model_name"), [("vpg", "VPG"), ("random_search", "random_search")])
def test_the_hub_reads_tags_and_the_score(algo: str, model_name: str) -> None:
    """The zoo's and the hub's lists of agents look for exactly these names."""
    metric = {"type": "mean_reward", "value": "490.00 +/- 10.00", "name": "mean_reward", "verified": False}
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": "CartPole-v1", "type": "CartPole-v1"},
        "metrics": [metric],
    }
    common = ["deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-vpg"]
    _, front_matter, _ = rendered(algo).split("---\n", 2)
    assert yaml.safe_load(front_matter) == {
        "library_name": "stable-baselines3",
        "tags": ["CartPole-v1", *common, algo],
        "model-index": [{"name": model_name, "results": [result]}],
    }


def test_the_page_says_how_the_score_was_measured() -> None:
    page = rendered()
    # Student's quantile for one degree of freedom, 12.706, times the standard error of 10
    assert "**490.00 ± 10.00** (95 % interval of the mean 362.94 to 617.06;" in page
    assert "after 102,400 steps" in page
    assert "| measured over | 2 episodes with deterministic actions, in 2 environments seeded from 7 on |" in page
    assert "| on | 2026-11-30T10:00:00 |" in page
    assert "\nsb3-vpg evaluate --env CartPole-v1 -f logs -n 2 --seed 7\n" in page
    assert "\nsb3-vpg train --env CartPole-v1 -f logs --seed 4\n" in page
    assert "\npolicy: MlpPolicy\n" in page


def test_the_commands_fit_the_agent() -> None:
    """Flags for sampled actions and modules, and the extra of the simulator, appear where they are needed, and only there."""
    page = rendered("random_search", "LunarLander-v3", deterministic=False, gym_packages=("my_env", "your_env"))
    flags = "--algo random_search --env LunarLander-v3 -f logs --gym-packages my_env your_env"
    assert f"\nsb3-vpg enjoy {flags} --stochastic\n" in page
    assert f"\nsb3-vpg evaluate {flags} -n 2 --seed 7 --stochastic\n" in page
    assert "\npip install 'sb3-vpg[box2d]'\n" in page
    assert "\n`my_env` and `your_env`: keep the folder of each module on `PYTHONPATH`" in page
    assert "\nimport my_env\nimport your_env\n" in page
    plain = rendered()
    assert not [text for text in ("--stochastic", "gym-packages", "PYTHONPATH", "[box2d]", "--algo") if text in plain]


def test_the_programs_on_the_page_register_their_environments() -> None:
    """The first line of each, alone in another process, registers what the zoo's commands know without --gym-packages."""
    programs = [re.search(r"```python\n(.*?)```", rendered("maskable_vpg", env_id), re.DOTALL)[1] for env_id in ENV_IDS]
    (first,) = {program.splitlines()[0] for program in programs}
    checks = "import sys, gymnasium; assert 'sb3_contrib' not in sys.modules"
    made = [f"gymnasium.make({env_id!r})" for env_id in ENV_IDS]
    subprocess.run([sys.executable, "-c", "; ".join([first, checks, *made])], check=True)
