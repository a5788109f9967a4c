"""
The policies that VPG's aliases name. They are SB3's, except that actor and critic keep separate features extractors
where an extractor has weights: VPG fits the critic in steps of its own, and those must not move the actor.
"""

import inspect
from typing import Any

from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy

MlpPolicy = ActorCriticPolicy
"""SB3's: its extractor only flattens, so there is nothing to share."""


class CnnPolicy(ActorCriticCnnPolicy):
    """
    SB3's CNN policy with ``share_features_extractor=False`` by default. Set it to True to halve the network: the
    extractor then learns from the policy's gradient alone.

    Other parameters: see ``ActorCriticCnnPolicy``.
    """

    def __init__(self, *args: Any, share_features_extractor: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, share_features_extractor=share_features_extractor, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves this one out, so its own policy.load() forgets a choice that is not the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class MultiInputPolicy(MultiInputActorCriticPolicy):
    """
    SB3's policy for ``Dict`` observations with ``share_features_extractor=False`` by default, as in ``CnnPolicy``.

    Other parameters: see ``MultiInputActorCriticPolicy``.
    """

    def __init__(self, *args: Any, share_features_extractor: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, share_features_extractor=share_features_extractor, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


def check_policy_class(policy_class: Any) -> None:
    """
    :raises ValueError: if the class is no ``ActorCriticPolicy``, or is one that needs more than observations and
        actions to evaluate a step, as recurrent policies do
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, ActorCriticPolicy)):
        raise ValueError(f"VPG needs a policy name or a subclass of ActorCriticPolicy, but got {policy_class!r}")
    try:
        inspect.signature(policy_class.evaluate_actions).bind("self", "observations", "actions")
    except TypeError:
        raise ValueError(
            f"VPG cannot train {policy_class.__name__}: its evaluate_actions() takes more than observations and actions. "
            "Recurrent policies carry a hidden state, which VPG does not keep; use sb3_contrib.RecurrentPPO for them"
        ) from None
