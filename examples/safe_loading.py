"""
Load a model from somebody else: its file cannot run code. A file with a pickle is refused.

    python examples/safe_loading.py
"""

import warnings

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_vpg import VPG
from sb3_vpg.exceptions import RefusedFileError


def main(total_timesteps: int = 2_000) -> None:
    model = VPG("MlpPolicy", "CartPole-v1", seed=0).learn(total_timesteps)
    model.save("from_a_friend.zip")
    print(f"Loaded after {VPG.load('from_a_friend.zip').num_timesteps} steps")

    # SB3's own save writes pickles, which can run any code when they are read
    BaseAlgorithm.save(model, "by_sb3.zip")
    try:
        VPG.load("by_sb3.zip")
    except RefusedFileError as error:
        print(f"Refused: {error}")

    # A setting that is not plain data, such as a function, must be given again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        VPG("MlpPolicy", "CartPole-v1", learning_rate=lambda progress: 0.002 * progress).save("with_a_function.zip")
    model = VPG.load("with_a_function.zip", custom_objects={"learning_rate": 0.001})
    print(f"Loaded with learning_rate={model.learning_rate}")


if __name__ == "__main__":
    main()
