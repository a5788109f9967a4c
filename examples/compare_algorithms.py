"""
Compare VPG with A2C over several seeds, with intervals.

    python examples/compare_algorithms.py
"""

from sb3_vpg.compare import compare


def main(total_timesteps: int = 20_000, seeds: int = 5) -> None:
    results = compare(["vpg", "a2c"], ["CartPole-v1"], seeds=seeds, n_timesteps=total_timesteps, folder="logs/vpg_and_a2c")
    for algo in ("vpg", "a2c"):
        print(f"{algo}: normalised returns of the final agents: {results.final(algo).ravel().round(2)}")
    print("The report with intervals: logs/vpg_and_a2c/report/report.html")


if __name__ == "__main__":
    main()
