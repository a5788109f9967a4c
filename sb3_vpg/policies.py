"""
The policies of VPG and of RandomSearch. VPG's are SB3's, but with separate features extractors for actor and critic by
default, since the critic's steps must not change the actor.
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim, get_flattened_obs_dim, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

MASKABLE_POLICY = "sb3_contrib.common.maskable.policies", "MaskableActorCriticPolicy"
RECURRENT_POLICY = "sb3_contrib.common.recurrent.policies", "RecurrentActorCriticPolicy"
_READ_DICTS = (
    (MASKABLE_POLICY[0], "MaskableMultiInputActorCriticPolicy"),
    (RECURRENT_POLICY[0], "RecurrentMultiInputActorCriticPolicy"),
)


def contrib_base(cls: type, *names: tuple[str, str]) -> type | None:
    """
    Return the class of sb3_contrib that a class is or inherits from, if it is one of these. sb3_contrib is not imported, which
    takes time.

    :param names: module and name of each
    """
    return next((base for base in cls.__mro__ if (base.__module__, base.__name__) in names), None)


class SeparateExtractors(BasePolicy):
    """Gives a policy of SB3 or sb3_contrib separate features extractors for actor and critic by default."""

    share_features_extractor: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("share_features_extractor", False)
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves this argument out, so its policy.load() would return to the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class MlpPolicy(SeparateExtractors, ActorCriticPolicy):
    """
    SB3's policy for vectors with ``share_features_extractor=False`` by default. That matters only for a
    ``features_extractor_class`` with weights; the default one only flattens.

    Other parameters: see ``ActorCriticPolicy``.
    """


class CnnPolicy(MlpPolicy, ActorCriticCnnPolicy):
    """
    SB3's policy for images, with one features extractor for the actor and one for the critic. With
    ``share_features_extractor=True`` there is one, about half as many weights, and it learns only from the policy's gradient.

    Other parameters: see ``ActorCriticCnnPolicy``.
    """


class MultiInputPolicy(MlpPolicy, MultiInputActorCriticPolicy):
    """
    SB3's policy for ``Dict`` observations, with separate features extractors as in ``CnnPolicy``.

    Other parameters: see ``MultiInputActorCriticPolicy``.
    """


class LinearPolicy(MlpPolicy):
    """
    A policy that is linear in the observation: softmax-linear for ``Discrete`` actions, linear-Gaussian for ``Box``. Its
    critic has SB3's two layers of 64; ``net_arch=dict(pi=[], vf=[...])`` chooses another one.

    Other parameters: see ``ActorCriticPolicy``.

    :raises ValueError: if ``net_arch`` gives the policy a hidden layer
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("net_arch") is None:
            kwargs["net_arch"] = {"pi": [], "vf": [64, 64]}
        net_arch = kwargs["net_arch"]
        if net_arch and (isinstance(net_arch, list) or net_arch.get("pi")):
            raise ValueError(f"LinearPolicy has no hidden layer, but net_arch is {net_arch}; use {{'pi': [], 'vf': [...]}}")
        super().__init__(*args, **kwargs)


POLICY_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": MlpPolicy,
    "CnnPolicy": CnnPolicy,
    "MultiInputPolicy": MultiInputPolicy,
    "LinearPolicy": LinearPolicy,
}


def original(policy: Any) -> Any:
    """Return the policy inside a ``th.compile(policy)``, as SB3 does; any other policy unchanged."""
    return getattr(policy, "_orig_mod", policy)


def check_policy_class(policy_class: Any) -> None:
    """
    :raises ValueError: if the class is no ``ActorCriticPolicy``, or if its ``evaluate_actions`` needs more than observations
        and actions, as that of a recurrent policy does
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, ActorCriticPolicy)):
        is_maskable = isinstance(policy_class, type) and contrib_base(policy_class, MASKABLE_POLICY) is not None
        advice = ". Use MaskableVPG for policies with action masks" if is_maskable else ""
        raise ValueError(f"VPG needs a policy name or a subclass of ActorCriticPolicy, but got {policy_class!r}{advice}")
    try:
        inspect.signature(policy_class.evaluate_actions).bind("self", "observations", "actions")
    except TypeError:
        raise ValueError(
            f"VPG cannot train {policy_class.__name__}: its evaluate_actions() takes more than observations and actions. "
            "Recurrent policies need a hidden state, which VPG does not keep; use RecurrentVPG for them"
        ) from None


def check_policy_reads(policy_class: type[Any], space: spaces.Space[Any]) -> None:
    """
    :param policy_class: used with its default ``features_extractor_class``
    :raises ValueError: if it is a policy for ``Dict`` observations and ``space`` is not a ``Dict``, or the reverse
    """
    reads_dicts = issubclass(policy_class, MultiInputActorCriticPolicy) or contrib_base(policy_class, *_READ_DICTS) is not None
    if isinstance(space, spaces.Dict) != reads_dicts:
        kind = "LstmPolicy" if contrib_base(policy_class, RECURRENT_POLICY) else "Policy"
        fitting = f"'MultiInput{kind}'" if isinstance(space, spaces.Dict) else f"'Mlp{kind}' (or 'Cnn{kind}' for images)"
        raise ValueError(
            f"{policy_class.__name__} cannot read observations in {space}: use {fitting}, or pass a features_extractor_class "
            "in policy_kwargs"
        )


def unknown_policy(name: str, known: Iterable[str], algorithm: str = "VPG") -> ValueError:
    """
    :param known: the policies that the algorithm knows by name
    :return: the error for a name that is not among them
    """
    return ValueError(
        f"{algorithm} knows no policy {name!r}, only {', '.join(known)} and policy classes. Recurrent policies (such as "
        "MlpLstmPolicy) are trained by RecurrentVPG, policies without memory by VPG"
    )


class LinearDecisionPolicy(BasePolicy):
    """
    A linear policy without bias. Each ``Discrete`` action has a row of weights, and the action whose row has the largest
    product with the features is chosen. Each component of a ``Box`` action is the product of its row, clipped to its bounds.

    The F features are the flattened observation. Discrete observations are one-hot, images are divided by 255, and the entries
    of a ``Dict`` are concatenated in the order of the space.

    The state dict holds ``weights``, shape (A, F), and ``best_return``, the return of the episode that these weights played.

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
                f"RandomSearch needs a Discrete or Box action space, but it is {action_space}; convert it with an action "
                "wrapper, or use VPG"
            )
        self.weights = nn.Parameter(th.zeros(n_rows, get_flattened_obs_dim(observation_space)), requires_grad=False)
        self.register_buffer("best_return", th.tensor(-math.inf, dtype=th.float64))

    def act(self, observations: PyTorchObs, weights: th.Tensor) -> th.Tensor:
        """
        :param observations: of N environments
        :param weights: one draw for all environments, shape (A, F), or one for each, shape (N, A, F)
        :return: N actions; those of a ``Box`` are clipped to its bounds. Among equal products the first action is chosen
        :raises ValueError: if a product is NaN or infinite
        """
        products_NA = self.products(observations, weights)
        if not th.isfinite(products_NA).all():
            raise ValueError(f"an observation is NaN, infinite or huge: its products with weights are {products_NA.tolist()}")
        return self.choose(products_NA)

    def products(self, observations: PyTorchObs, weights: th.Tensor) -> th.Tensor:
        """Return the products of weights and features, shape (N, A). Parameters: see ``act``."""
        return (weights @ self._features(observations).unsqueeze(-1)).squeeze(-1)

    def choose(self, products_NA: th.Tensor) -> th.Tensor:
        """Return the actions for these products, shape (N, A); see ``act``."""
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
        # In the order of the space, since a caller's dict may have another
        return th.cat([prepared[key].flatten(start_dim=1) for key in self.observation_space.spaces], dim=1)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """The policy is deterministic, so ``deterministic`` has no effect."""
        return self.act(observation, self.weights)
