"""Registers an environment in which every training fails, for workers that import this module by its name."""

import gymnasium as gym


class Breaks(gym.Wrapper):
    """CartPole that raises an error in its 100th step if its seed is one of a training, not one of a random policy."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.steps, self.is_training = 0, False

    def reset(self, *, seed=None, options=None):
        self.is_training |= seed is not None and seed < 1000
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        self.steps += 1
        if self.is_training and self.steps == 100:
            raise RuntimeError("the pole has broken")
        return self.env.step(action)


if "Breaks-v0" not in gym.registry:
    # A function, because an old gymnasium reads the metadata of a class, which is a property in wrappers
    gym.register("Breaks-v0", lambda: Breaks(), reward_threshold=475.0, max_episode_steps=50)
