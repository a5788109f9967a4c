"""
Train the agents that ship with the package, and copy them to trained_agents/.

    python scripts/train_agents.py train
    python scripts/train_agents.py train --envs CartPole-v1 Acrobot-v1 --jobs 1

There is one run of ``sb3-vpg train`` for each entry of hyperparams/vpg.yml. After a kill, the same command resumes unfinished
runs from their last checkpoints, and leaves finished runs alone. A run whose entry has changed starts again. An agent ships
only if it reaches the return at which its environment counts as solved, or with --unsolved. ``sb3-vpg benchmark`` makes the
table of the shipped agents.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from huggingface_sb3 import EnvironmentName
from ship_agent import ship

from sb3_vpg.zoo.agents.evaluation import evaluate_run
from sb3_vpg.zoo.hyperparams import hyperparams
from sb3_vpg.zoo.safe_yaml import as_read_back, read_yaml
from sb3_vpg.zoo.thresholds import reward_threshold

SHIPPED = Path(__file__).parents[1] / "trained_agents"
ALGO = "vpg"
EPISODES = 500
_EVALUATIONS = 20


def flags(env_id: str, entry: dict[str, Any], seed: int) -> list[str]:
    """:return: the flags of ``sb3-vpg train``"""
    every = max(1, int(float(entry["n_timesteps"])) // _EVALUATIONS)
    evaluations = ["--eval-freq", str(every), "--eval-episodes", "20", "--n-eval-envs", "10"]
    return ["--env", env_id, "--seed", str(seed), "--num-threads", "1", *evaluations]


def train(env_id: str, entry: dict[str, Any], seed: int, logs: Path) -> Path:
    """
    :param env_id: environment id
    :param entry: its entry in the hyperparameter file
    :param seed: of the run
    :param logs: log folder of this seed
    :return: the folder of the finished run
    :raises CalledProcessError: if training failed or was stopped
    """
    name = EnvironmentName(env_id)
    run = logs / ALGO / f"{name}_1"
    config = run / name / "config.yml"
    if config.is_file() and read_yaml(config) != as_read_back(entry):
        print(f"{run} was trained with other hyperparameters: it starts again", flush=True)
        shutil.rmtree(run)
    resume = ["--resume"] if run.is_dir() else []
    command = [sys.executable, "-m", "sb3_vpg", "train", *flags(env_id, entry, seed)]
    output_flags = ["--verbose", "0", "-f", str(logs), *resume]
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("a") as output:
        subprocess.run([*command, *output_flags], check=True, stdout=output, stderr=subprocess.STDOUT)
    return run


def train_and_ship(env_id: str, args: argparse.Namespace) -> bool:
    """Train, score, and ship if the score suffices; print the outcome. :return: True if the agent ships"""
    entry, logs = hyperparams[env_id], args.folder / f"seed_{args.seed}"
    try:
        run = train(env_id, entry, args.seed, logs)
    except subprocess.CalledProcessError as error:
        print(f"{env_id}: training ended with {error.returncode}; see {logs / EnvironmentName(env_id)}.log", flush=True)
        return False
    score, threshold = evaluate_run(str(logs), ALGO, env_id, 1, EPISODES, seed=1000), reward_threshold(env_id)
    solved = threshold is None or float(score.returns.mean()) >= threshold
    ships = solved or args.unsolved
    size = 0
    if ships:
        target = args.out / ALGO / run.name
        ship(run, env_id, target, f"sb3-vpg train {shlex.join(flags(env_id, entry, args.seed))}")
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    verdict = f"ships, {size / 1000:.0f} KB" if ships else f"misses {threshold:g} and does not ship"
    print(f"{env_id}: {score.returns.mean():.2f} ± {score.returns.std():.2f} over {EPISODES} episodes; {verdict}", flush=True)
    return ships


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["train"], help="train, score and copy to --out")
    names = [name for name in hyperparams if name != "default"]
    parser.add_argument("--envs", nargs="+", choices=names, default=names, metavar="ENV", help="default: every entry")
    parser.add_argument("--seed", type=int, default=0, help="seed of every run (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: 2)")
    parser.add_argument("--unsolved", action="store_true", help="ship agents that miss the threshold, too")
    parser.add_argument("--folder", type=Path, default=Path("logs/agents"), help="folder of the runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder for the agents (default: trained_agents)")
    args = parser.parse_args()
    with ThreadPoolExecutor(args.jobs) as pool:
        shipped = list(pool.map(lambda env_id: train_and_ship(env_id, args), args.envs))
    return 0 if all(shipped) else 1


if __name__ == "__main__":
    sys.exit(main())
