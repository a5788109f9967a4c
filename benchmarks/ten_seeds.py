"""
Is VPG reliable on CartPole-v1? Ten seeds with the command line's hyperparameters, ten with the defaults of the class.

    python benchmarks/ten_seeds.py

Each run is a separate process and leaves a JSON file, so a killed benchmark repeats only the runs that are missing. Result:
benchmarks/results/ten_seeds.md.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from harness.cache import cached
from harness.report import RESULTS, table
from tqdm import tqdm

from sb3_vpg.common.system_info import describe

SETTLED_AFTER = 50_000
THRESHOLD = 475.0


def train_with_zoo(folder: Path, seed: int) -> dict[str, float]:
    """``sb3-vpg train`` with an evaluation every 5000 steps, then 100 episodes with the final model."""
    from sb3_vpg.zoo.agents.evaluation import evaluate_run

    logs = folder / f"zoo_{seed}"
    flags = ["--env", "CartPole-v1", "--seed", str(seed), "--eval-freq", "5000", "--eval-episodes", "20"]
    command = [sys.executable, "-m", "sb3_vpg", "train", *flags, "--num-threads", "1", "--verbose", "0", "-f", str(logs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    final = evaluate_run(str(logs), "vpg", "CartPole-v1", seed=1000)
    log = np.load(final.run / "evaluations.npz")
    steps, scores = log["timesteps"].astype(float), log["results"].mean(axis=1)
    below = steps[scores < THRESHOLD]
    return {
        "final": float(final.returns.mean()),
        "lowest": float(scores[steps > SETTLED_AFTER].min()),
        "n_late": int((steps > SETTLED_AFTER).sum()),
        "stays_from": float(steps[steps > (below.max() if len(below) else 0)].min(initial=np.inf)),
    }


def train_with_defaults(folder: Path, seed: int) -> dict[str, float]:
    """``VPG("MlpPolicy", "CartPole-v1", seed=seed).learn(100_000)``, then 100 episodes with the final model."""
    program = f"""
import torch
torch.set_num_threads(1)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from sb3_vpg import VPG
model = VPG("MlpPolicy", "CartPole-v1", seed={seed}).learn(100_000)
print(evaluate_policy(model, make_vec_env("CartPole-v1", 10, seed=1000), 100)[0])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {"final": float(done.stdout)}


def run(kind: str, folder: Path, seed: int) -> dict[str, float]:
    """:return: the result of a run, from its file if it was done before"""
    train = {"zoo": train_with_zoo, "defaults": train_with_defaults}[kind]
    return cached(folder / f"{kind}_{seed}.json", lambda: train(folder, seed))


def seed_table(zoo: list[dict[str, float]], defaults: list[dict[str, float]]) -> list[str]:
    head = [
        "seed",
        "zoo: final model",
        f"zoo: lowest evaluation after {SETTLED_AFTER:,} steps",
        f"zoo: always ≥ {THRESHOLD:.0f} from step",
        "class defaults: final model",
    ]
    rows = [
        [f"{seed}", f"{tuned['final']:.1f}", f"{tuned['lowest']:.1f}", f"{tuned['stays_from']:,.0f}", f"{plain['final']:.1f}"]
        for seed, (tuned, plain) in enumerate(zip(zoo, defaults, strict=True))
    ]
    passed = (
        f"≥ {THRESHOLD:.0f}",
        sum(run["final"] >= THRESHOLD for run in zoo),
        sum(run["lowest"] >= THRESHOLD for run in zoo),
        f"median {np.median([run['stays_from'] for run in zoo]):,.0f}",
        sum(run["final"] >= THRESHOLD for run in defaults),
    )
    return table(head, [*rows, [f"**{cell}**" for cell in passed]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/ten_seeds"), help="folder of the finished runs")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    tasks = [(kind, seed) for kind in ("zoo", "defaults") for seed in range(args.seeds)]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(tqdm(pool.map(lambda task: run(task[0], args.folder, task[1]), tasks), total=len(tasks)))
    text = "\n".join(
        [
            "# VPG on CartPole-v1 over ten seeds",
            "",
            f"Command: `python benchmarks/ten_seeds.py{'' if args.seeds == 10 else f' --seeds {args.seeds}'}`",
            "",
            "Mean deterministic return over 100 episodes of the final model, after 100,000 steps; evaluations during",
            "training are 20 deterministic episodes every 5,000 steps. No seed was left out.",
            "",
            *seed_table(results[: args.seeds], results[args.seeds :]),
            describe(),
            "",
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ten_seeds.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
