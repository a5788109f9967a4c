"""The policy of ``RandomSearch``: weights that are drawn, not learnt."""

import math
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim, get_flattened_obs_dim, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn


class LinearDecisionPolicy(BasePolicy):
    """
    A linear decision without bias: one row of weights per action, and the action whose row has the largest product with
    the features. For ``Box`` actions the products themselves, clipped to the bounds.

    Features (F of them) are the observation, flattened; discrete ones are one-hot, the parts of a ``Dict`` follow each
    other in the order of the space, images are divided by 255.

    The state dict holds ``weights``, shape (A, F), and ``best_return``, the return of the episode that earned them.

    :param observation_space: any that SB3 takes
    :param action_space: ``Discrete`` (A: number of actions) or ``Box`` (A: number of components)
    :param normalize_images: divide images by 255
    :raises ValueError: for another action space
    """

    best_return: th.Tensor

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], normalize_images: bool = True
    ) -> None:
        super().__init__(observation_space, action_space, normalize_images=normalize_images)
        if isinstance(action_space, spaces.Discrete):
            n_rows = int(action_space.n)
        elif isinstance(action_space, spaces.Box):
            n_rows = get_action_dim(action_space)
        else:
            raise ValueError(
                f"RandomSearch decides among Discrete actions or sets those of a Box, but the action space is {action_space}; "
                "let an action wrapper turn it into one of them, or use VPG"
            )
        self.weights = nn.Parameter(th.zeros(n_rows, get_flattened_obs_dim(observation_space)), requires_grad=False)
        self.register_buffer("best_return", th.tensor(-math.inf, dtype=th.float64))

    def act(self, observations: PyTorchObs, weights: th.Tensor) -> th.Tensor:
        """
        :param observations: of N environments
        :param weights: one draw for all, shape (A, F), or one for each, shape (N, A, F)
        :return: N actions, those of a ``Box`` clipped to its bounds. Of equal products the first action wins
        """
        products_NA = (weights @ self._features(observations).unsqueeze(-1)).squeeze(-1)
        if not th.isfinite(products_NA).all():
            raise ValueError(f"an observation is NaN, infinite or huge, so that the decision is {products_NA.tolist()}")
        if isinstance(self.action_space, spaces.Discrete):
            return products_NA.argmax(dim=1) + int(self.action_space.start)
        assert isinstance(self.action_space, spaces.Box)
        low, high = (th.as_tensor(bound.ravel()).to(products_NA) for bound in (self.action_space.low, self.action_space.high))
        return products_NA.clamp(low, high).reshape((-1, *self.action_space.shape))

    def _features(self, observations: PyTorchObs) -> th.Tensor:
        prepared = preprocess_obs(observations, self.observation_space, normalize_images=self.normalize_images)
        if isinstance(prepared, th.Tensor):
            return prepared.flatten(start_dim=1)
        assert isinstance(self.observation_space, spaces.Dict)
        # In the space's order: a caller's dict may have another
        return th.cat([prepared[key].flatten(start_dim=1) for key in self.observation_space.spaces], dim=1)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """There is nothing to sample: the decision is the same with and without ``deterministic``."""
        return self.act(observation, self.weights)
