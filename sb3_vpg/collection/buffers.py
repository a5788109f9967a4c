"""Rollout buffers for whole episodes, and access to SB3's rollout buffers without copies."""

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import obs_as_tensor

from sb3_vpg.common.arguments import whole_number
from sb3_vpg.common.observations import take
from sb3_vpg.estimation.estimator import Estimator
from sb3_vpg.estimation.returns import Episodes
from sb3_vpg.exceptions import EndlessEpisodeError
from sb3_vpg.policies import contrib_base

_ARRAYS = ("actions", "rewards", "returns", "episode_starts", "values", "log_probs", "advantages", "counted")
_MASKABLE = tuple(
    ("sb3_contrib.common.maskable.buffers", name) for name in ("MaskableRolloutBuffer", "MaskableDictRolloutBuffer")
)


class EpisodeBuffer(RolloutBuffer):
    """
    Differs from SB3's buffer in three points. It grows until all episodes are over. It knows which steps count. ``get``
    yields only those, environment by environment, each in the order of collection.

    :param buffer_size: number of rows at first; a later rollout begins with as many as the one before needed
    :param max_steps: largest number of rows
    """

    counted: np.ndarray
    keyword_names: ClassVar[tuple[str, ...]] = ()
    """Arrays of more inputs of the policy, shape (T, N, ...), by the keyword under which the policy takes them."""

    def __init__(self, buffer_size: int, *args: Any, max_steps: int = 100_000, **kwargs: Any) -> None:
        self.max_steps = whole_number("max_steps in rollout_buffer_kwargs", max_steps, at_least=1)
        super().__init__(min(buffer_size, self.max_steps), *args, **kwargs)

    def reset(self) -> None:
        super().reset()
        self.counted = np.zeros((self.buffer_size, self.n_envs), dtype=bool)

    def mark_counted(self, counted: np.ndarray) -> np.ndarray:
        """
        Note which environments' steps count in the next row, and grow if there is no such row yet.

        :param counted: True where the step counts, shape (n_envs,)
        :return: ``counted``
        :raises EndlessEpisodeError: if the buffer has ``max_steps`` rows already
        """
        if self.pos == self.buffer_size:
            self._grow(counted)
        self.counted[self.pos] = counted
        return counted

    def truncate(self) -> None:
        """Drop the unused rows when the rollout is complete."""
        self._resize(self.pos)

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the counted steps in parts of ``batch_size``; None: all at once."""
        batch = full_batch(self)
        n_steps = len(batch.returns)
        for start in range(0, n_steps, batch_size or n_steps):
            rows = slice(start, start + (batch_size or n_steps))
            yield type(batch)(*(take(part, rows) for part in batch))

    def _grow(self, counted: np.ndarray) -> None:
        if self.buffer_size >= self.max_steps:
            raise EndlessEpisodeError(
                f"Environments {np.flatnonzero(counted).tolist()} have not finished their episodes after {self.pos} steps. "
                "An episode that never ends cannot be learned from as a whole: limit its time "
                "(gymnasium.wrappers.TimeLimit), or set n_steps instead of n_episodes. If episodes are that long, raise "
                "rollout_buffer_kwargs={'max_steps': ...}"
            )
        self._resize(min(2 * self.buffer_size, self.max_steps))

    def _resize(self, n_rows: int) -> None:
        for name in (*_ARRAYS, *self.keyword_names):
            setattr(self, name, _resized(getattr(self, name), n_rows))
        observations: Any = self.observations
        if isinstance(observations, dict):
            self.observations = {key: _resized(value, n_rows) for key, value in observations.items()}  # type: ignore[assignment]  # Dict
        else:
            self.observations = _resized(observations, n_rows)
        self.buffer_size = n_rows


class EpisodeRolloutBuffer(EpisodeBuffer):
    """SB3's ``RolloutBuffer`` for updates on whole episodes. Other parameters: see ``RolloutBuffer``."""


class EpisodeDictRolloutBuffer(EpisodeBuffer, DictRolloutBuffer):  # type: ignore[misc]  # as in SB3, get yields dicts
    """SB3's ``DictRolloutBuffer`` for updates on whole episodes. Other parameters: see ``DictRolloutBuffer``."""


class BufferClasses(NamedTuple):
    """
    The buffers of an algorithm: for rollouts of fixed length and for whole episodes, each for arrays and for dicts.

    :param allows_others: whether a user's class may take the place of one for fixed length
    """

    fixed: type[RolloutBuffer]
    fixed_dict: type[RolloutBuffer]
    episodes: type[RolloutBuffer]
    episodes_dict: type[RolloutBuffer]
    allows_others: bool = False


SB3_BUFFERS = BufferClasses(
    RolloutBuffer, DictRolloutBuffer, EpisodeRolloutBuffer, EpisodeDictRolloutBuffer, allows_others=True
)


def buffer_class(
    chosen: type[RolloutBuffer] | None,
    observation_space: spaces.Space[Any],
    estimator: Estimator,
    own: BufferClasses = SB3_BUFFERS,
) -> type[RolloutBuffer]:
    """
    :param chosen: ``rollout_buffer_class`` of the user, or what SB3 or this function chose before
    :param own: the classes of the algorithm
    :return: the class to use
    :raises ValueError: if the user's class does not fit the observations, or if the estimator needs one of ours
    """
    has_dict = isinstance(observation_space, spaces.Dict)
    # A user's class may store dicts without being a DictRolloutBuffer
    if chosen is not None and issubclass(chosen, DictRolloutBuffer) != has_dict and (not has_dict or chosen in own):
        raise ValueError(
            f"rollout_buffer_class={chosen.__name__} does not fit the observation space {observation_space}: leave it out, or "
            f"use {'DictRolloutBuffer' if has_dict else 'RolloutBuffer'} or a subclass of it"
        )
    if chosen is not None and chosen not in own:
        if not own.allows_others:
            raise ValueError(f"rollout_buffer_class={chosen.__name__} cannot be used, only {own.fixed.__name__}: leave it out")
        if not estimator.is_gae_on_fixed_length:
            raise ValueError(
                f"rollout_buffer_class={chosen.__name__} cannot be used with n_episodes or a baseline other than 'value', "
                "because it computes advantages itself and cannot mask steps: leave it out"
            )
        return chosen
    if estimator.n_episodes is None:
        return own.fixed_dict if has_dict else own.fixed
    return own.episodes_dict if has_dict else own.episodes


def has_known_layout(buffer: RolloutBuffer) -> bool:
    """Return whether the class is SB3's, contrib's or ours, so that its arrays may be used without its methods."""
    cls = type(buffer)
    return isinstance(buffer, EpisodeBuffer) or cls in (RolloutBuffer, DictRolloutBuffer, contrib_base(cls, *_MASKABLE))


def counted_steps(buffer: RolloutBuffer) -> np.ndarray:
    """Return True where a step counts, shape (T, N)."""
    if isinstance(buffer, EpisodeBuffer):
        return buffer.counted
    return np.ones((buffer.buffer_size, buffer.n_envs), dtype=bool)


def episode_lengths(buffer: RolloutBuffer) -> list[int] | None:
    """Return the length of each episode, in the order of ``full_batch``; None for rollouts of fixed length."""
    if not isinstance(buffer, EpisodeBuffer):
        return None
    return Episodes.of(buffer.episode_starts, buffer.counted).lengths_E.tolist()  # type: ignore[no-any-return]  # NumPy


def by_environment(buffer: RolloutBuffer, numbers: th.Tensor) -> th.Tensor:
    """
    :param numbers: one for each step of ``full_batch``, shape (n,)
    :return: the same numbers, environment by environment, each in the order of time; a user's buffer keeps its own order
    """
    if isinstance(buffer, EpisodeBuffer) or not has_known_layout(buffer) or buffer.generator_ready:
        return numbers
    return numbers.reshape(buffer.buffer_size, buffer.n_envs).T.flatten()


def in_batch_order(buffer: RolloutBuffer, array: np.ndarray) -> np.ndarray:
    """
    :param array: of the buffer, shape (T, N, ...); it is unchanged if a callback has called ``get()``, which reorders it
    :return: its entries for the steps of ``full_batch``, in the same order, shape (n, ...)
    """
    if buffer.generator_ready:
        return array
    flat = array.reshape(-1, *array.shape[2:])
    return flat[_counted(buffer)] if isinstance(buffer, EpisodeBuffer) else flat


def _counted(buffer: EpisodeBuffer) -> np.ndarray:
    """Return the indices of the counted steps in the flattened buffer, environment by environment, shape (n,)."""
    envs, rows = np.nonzero(buffer.counted.T)
    counted: np.ndarray = rows * buffer.n_envs + envs
    return counted


def store_observations(
    buffer: RolloutBuffer, observations: Any, starts: np.ndarray, keywords: Mapping[str, np.ndarray]
) -> None:
    """
    Write what is known before a step into the next row, because a ``VecEnv`` may overwrite its arrays in the step.

    :param observations: shape (N, *shape), or a dict of such arrays
    :param starts: whether an episode starts with the observation, shape (N,)
    :param keywords: more inputs of the policy, see ``EpisodeBuffer.keyword_names``
    """
    row = buffer.pos
    for name, value in keywords.items():
        getattr(buffer, name)[row] = value
    stored: Any = buffer.observations
    if isinstance(stored, dict):
        for key, array in stored.items():
            array[row] = observations[key].reshape(array.shape[1:])
    else:
        # Observations of discrete spaces have a dimension less
        stored[row] = observations if observations.ndim == stored.ndim - 1 else observations.reshape(stored.shape[1:])
    buffer.episode_starts[row] = starts


def store_step(buffer: RolloutBuffer, actions: np.ndarray, rewards: np.ndarray) -> None:
    """
    Write a step into the row of ``store_observations``. The two do what ``RolloutBuffer.add`` does, without copies and without
    values and log-probabilities, which follow for the whole rollout.
    """
    row = buffer.pos
    buffer.actions[row] = actions.reshape(buffer.actions.shape[1:])
    buffer.rewards[row] = rewards
    buffer.pos = row + 1


def flat_observations(buffer: RolloutBuffer) -> Any:
    """Return all observations with shape (T * N, ...), row by row, as a view of the buffer."""
    observations: Any = buffer.observations
    if isinstance(observations, dict):
        return {key: array.reshape(-1, *array.shape[2:]) for key, array in observations.items()}
    return observations.reshape(-1, *observations.shape[2:])


def full_batch(buffer: RolloutBuffer) -> RolloutBufferSamples:
    """
    :return: all counted steps. From SB3's buffers: row by row, as views. From ours: environment by environment. From a
        user's: in the order of its ``get``
    """
    if not has_known_layout(buffer):
        return next(iter(buffer.get(batch_size=None)))
    if buffer.generator_ready:
        # A callback has called get(), which reorders the arrays environment by environment
        return buffer._get_samples(np.arange(buffer.buffer_size * buffer.n_envs))
    observations = flat_observations(buffer)
    names = ("actions", "values", "log_probs", "advantages", "returns")
    arrays = [getattr(buffer, name).reshape(buffer.buffer_size * buffer.n_envs, -1) for name in names]
    if isinstance(buffer, EpisodeBuffer):
        steps = _counted(buffer)
        observations, arrays = take(observations, steps), [array[steps] for array in arrays]
    # In float32, as SB3's buffer returns them
    actions, *numbers = (th.as_tensor(array.astype(np.float32, copy=False), device=buffer.device) for array in arrays)
    tensors: Any = obs_as_tensor(observations, buffer.device)
    return RolloutBufferSamples(tensors, actions, *(number.flatten() for number in numbers))


def _resized(array: np.ndarray, n_rows: int) -> np.ndarray:
    if n_rows <= len(array):
        return array[:n_rows]
    return np.concatenate([array, np.zeros((n_rows - len(array), *array.shape[1:]), dtype=array.dtype)])
