"""
The policies that VPG's aliases name. They are SB3's, except that actor and critic keep separate features extractors by
default: VPG fits the critic in steps of its own, and those must not move the actor.
"""

import inspect
from typing import Any

from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy


class MlpPolicy(ActorCriticPolicy):
    """
    SB3's policy for vectors with ``share_features_extractor=False`` by default. That matters where a
    ``features_extractor_class`` of the user's has weights; SB3's own only flattens.

    Other parameters: see ``ActorCriticPolicy``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("share_features_extractor", False)
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # SB3 leaves this one out, so that its own policy.load() forgets a choice that is not the default
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class CnnPolicy(MlpPolicy, ActorCriticCnnPolicy):
    """
    SB3's policy for images with a features extractor each for actor and critic. With
    ``share_features_extractor=True`` the network is half as large, and its extractor learns from the policy's gradient
    alone.

    Other parameters: see ``ActorCriticCnnPolicy``.
    """


class MultiInputPolicy(MlpPolicy, MultiInputActorCriticPolicy):
    """
    SB3's policy for ``Dict`` observations with a features extractor each for actor and critic, as in ``CnnPolicy``.

    Other parameters: see ``MultiInputActorCriticPolicy``.
    """


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
