"""
The policies that MaskableVPG's aliases name: sb3_contrib's, but with separate features extractors for actor and critic by
default, since the critic's steps must not change the actor. Importing this module imports sb3_contrib.
"""

from typing import Any

from sb3_contrib.common.maskable.policies import (
    MaskableActorCriticCnnPolicy,
    MaskableActorCriticPolicy,
    MaskableMultiInputActorCriticPolicy,
)
from stable_baselines3.common.policies import BasePolicy

from sb3_vpg.policies import SeparateExtractors


class MaskableMlpPolicy(SeparateExtractors, MaskableActorCriticPolicy):
    """sb3_contrib's maskable policy for vectors. Parameters: see ``MaskableActorCriticPolicy``."""


class MaskableCnnPolicy(SeparateExtractors, MaskableActorCriticCnnPolicy):
    """sb3_contrib's maskable policy for images. Parameters: see ``MaskableActorCriticCnnPolicy``."""


class MaskableMultiInputPolicy(SeparateExtractors, MaskableMultiInputActorCriticPolicy):
    """sb3_contrib's maskable policy for ``Dict`` observations. Parameters: see ``MaskableMultiInputActorCriticPolicy``."""


MASKABLE_ALIASES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": MaskableMlpPolicy,
    "CnnPolicy": MaskableCnnPolicy,
    "MultiInputPolicy": MaskableMultiInputPolicy,
}


def check_maskable_policy(policy_class: Any) -> None:
    """:raises ValueError: if the class is no ``MaskableActorCriticPolicy``"""
    if not (isinstance(policy_class, type) and issubclass(policy_class, MaskableActorCriticPolicy)):
        raise ValueError(
            f"MaskableVPG needs one of {', '.join(MASKABLE_ALIASES)} or a subclass of "
            f"sb3_contrib's MaskableActorCriticPolicy, but got {policy_class!r}"
        )
