"""VPG in the zoo's tables, its hyperparameter files, and the search over hyperparameters."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rl_zoo3.train
import yaml
from helpers import MAY_STAND_STILL
from rl_zoo3 import ALGOS
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

from sb3_vpg import VPG
from sb3_vpg.zoo import register
from sb3_vpg.zoo.cli import main
from sb3_vpg.zoo.hyperparams import hyperparams, hyperparams_file

ROOT = Path(__file__).parents[2]
ENTRIES = yaml.safe_load(hyperparams_file("vpg").read_text())


def test_register_fills_the_tables_and_replaces_nothing() -> None:
    before = {name: ALGOS[name] for name in ALGOS if name != "vpg"}
    register()
    register()
    assert ALGOS["vpg"] is VPG
    assert {name: ALGOS[name] for name in before} == before
    assert set(HYPERPARAMS_SAMPLER) & set(HYPERPARAMS_CONVERTER) >= {"vpg"}
    assert rl_zoo3.train.ExperimentManager is ExperimentManager


def test_importing_the_package_leaves_rl_zoo3_alone() -> None:
    """rl_zoo3 replaces gymnasium's TimeLimit for the whole process, so importing our package must not import it."""
    program = "import sys, sb3_vpg, sb3_vpg.zoo; sb3_vpg.VPG; sys.exit('rl_zoo3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_unmodified_zoo_trains_vpg_after_register(tmp_path: Path) -> None:
    """The zoo's own program trains VPG with a custom_envs.py that registers it and ``-conf``, as documented."""
    (tmp_path / "custom_envs.py").write_text("import sb3_vpg.zoo\nsb3_vpg.zoo.register()\n")
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", "vpg", "-conf", "sb3_vpg.zoo.hyperparams", "-n", "600"]
    done = subprocess.run([*command, "--eval-freq", "-1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1.zip").is_file()


# Old versions of environments warn, and so does Box2D, whose import crashes Python if warnings are errors
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@MAY_STAND_STILL
@pytest.mark.parametrize("env_id", ENTRIES)
def test_every_entry_trains(env_id: str, tmp_path: Path) -> None:
    """Each entry trains for one update: a misspelt key, a wrong type or a missing environment would end the command."""
    name = "CartPole-v1" if env_id == "default" else env_id
    conf = ["-conf", str(tmp_path / "default.yml")] if env_id == "default" else []
    (tmp_path / "default.yml").write_text(yaml.safe_dump({name: ENTRIES["default"]}))
    command = ["train", "--env", name, "-n", "64", "--eval-freq", "-1", "--verbose", "0", "-f", str(tmp_path / "logs"), *conf]
    assert main(command) == 0
    trained = VPG.load(tmp_path / f"logs/vpg/{name}_1/{name}.zip", device="cpu")
    assert trained._n_updates > 0
    expected = {key: ENTRIES[env_id][key] for key in ("gamma", "n_steps", "learning_rate") if key in ENTRIES[env_id]}
    assert {key: getattr(trained, key) for key in expected} == expected


def test_the_entries_named_in_the_documentation_are_there() -> None:
    """docs/environments.md includes the table of the agents, and names the entries without an agent."""
    page = (ROOT / "docs/environments.md").read_text()
    table = "trained_agents/benchmark.md"
    assert f"{{include}} ../{table}\n" in page
    with_agent = set(re.findall(r"^\| (\S+) \| vpg \|", (ROOT / table).read_text(), re.MULTILINE))
    named = {env_id for env_id in hyperparams if f"`{env_id}`" in page}
    assert with_agent | named == set(hyperparams) - {"default"}


def test_conf_overrides_our_file(tmp_path: Path) -> None:
    conf = tmp_path / "mine.yml"
    conf.write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 500, n_steps: 50, gamma: 0.9}")
    assert main(["train", "-conf", str(conf), "--eval-freq", "-1", "-f", str(tmp_path / "logs"), "--verbose", "0"]) == 0
    model = VPG.load(tmp_path / "logs/vpg/CartPole-v1_1/CartPole-v1.zip")
    assert (model.n_steps, model.gamma, model.num_timesteps) == (50, 0.9, 500)


def test_evaluations_use_the_env_kwargs_of_an_entry(tmp_path: Path) -> None:
    """The time limit of the entry also holds in evaluations. Without it, one on CliffWalking might never end."""
    conf = tmp_path / "mine.yml"
    conf.write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 64, n_steps: 32, env_kwargs: {max_episode_steps: 7}}")
    assert main(["train", "-conf", str(conf), "--eval-freq", "32", "-f", str(tmp_path), "--verbose", "0"]) == 0
    assert np.load(tmp_path / "vpg/CartPole-v1_1/evaluations.npz")["ep_lengths"].max() == 7
