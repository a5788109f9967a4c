"""Rollout buffers with the action masks of each step. Importing this module imports sb3_contrib."""

from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer

from sb3_vpg.collection.buffers import BufferClasses, EpisodeBuffer

_MASKS = ("action_masks",)


class MaskedEpisodeRolloutBuffer(EpisodeBuffer, MaskableRolloutBuffer):  # type: ignore[misc]  # get yields no masks
    """sb3_contrib's ``MaskableRolloutBuffer`` for updates on whole episodes."""

    keyword_names = _MASKS


class MaskedEpisodeDictRolloutBuffer(EpisodeBuffer, MaskableDictRolloutBuffer):  # type: ignore[misc]  # get yields no masks
    """sb3_contrib's ``MaskableDictRolloutBuffer`` for updates on whole episodes."""

    keyword_names = _MASKS


MASKED_BUFFERS = BufferClasses(
    MaskableRolloutBuffer, MaskableDictRolloutBuffer, MaskedEpisodeRolloutBuffer, MaskedEpisodeDictRolloutBuffer
)
