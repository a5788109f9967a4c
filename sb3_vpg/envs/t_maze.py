"""The T-maze, a task that needs memory: ``TMaze-v0`` in Gymnasium."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_vpg.common.arguments import whole_number

NORTH, EAST, SOUTH, WEST = range(4)
_SIGNALS = {NORTH: (0, 1, 1), SOUTH: (1, 1, 0)}
_CORRIDOR, _JUNCTION = (1, 0, 1), (0, 1, 0)
_PIXELS = 24
_WALL, _FLOOR, _GOAL, _AGENT = (40, 40, 40), (225, 225, 225), (60, 170, 80), (50, 90, 200)


class TMaze(gym.Env[np.ndarray, np.int64]):
    """
    The T-maze of Bakker 2001, *Reinforcement Learning with Long Short-Term Memory*
    (https://proceedings.neurips.cc/paper/2001/hash/a38b16173474ba8b1a95bcbc30d3b8a5-Abstract.html).

    The agent starts at the west end of a corridor, where a signal shows whether the goal is in the north or in the south of
    the junction at its east end. The signal is seen only there, and all positions between look the same. So no policy without
    memory can do better at the junction than to guess.

    Observations, ``Box`` of shape (3,): (0, 1, 1) or (1, 1, 0) at the start, for a goal in the north or in the south;
    (1, 0, 1) in the corridor; (0, 1, 0) at the junction. Actions: 0 north, 1 east, 2 south, 3 west.

    Rewards, as in the paper: 4 for the right turn at the junction and -0.1 for the wrong one, both of which end the episode;
    -0.1 for a step into a wall, which does not move the agent; 0 for every other step. The best return is 4; a policy that
    walks straight on and guesses has 1.95 on average. The paper names no time limit; ``TMaze-v0`` ends an episode after 100
    steps.

    :param corridor_length: number of steps from the start to the junction
    :param render_mode: ``"rgb_array"``, or None
    :raises ValueError: if ``corridor_length`` is not a whole number from 1 on
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # Gymnasium declares no ClassVar

    def __init__(self, corridor_length: int = 10, render_mode: str | None = None) -> None:
        self.corridor_length = whole_number("corridor_length", corridor_length, at_least=1)
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(4)
        self.position, self.goal = 0, NORTH

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """See ``gymnasium.Env.reset``."""
        super().reset(seed=seed)
        self.position = 0
        self.goal = (NORTH, SOUTH)[int(self.np_random.integers(2))]
        return self._observation(), {}

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env.step``."""
        at_junction = self.position == self.corridor_length
        if at_junction and action in (NORTH, SOUTH):
            return self._observation(), 4.0 if action == self.goal else -0.1, True, False, {}
        before = self.position
        self.position += {EAST: int(not at_junction), WEST: -int(before > 0)}.get(int(action), 0)
        return self._observation(), 0.0 if self.position != before else -0.1, False, False, {}

    def render(self) -> np.ndarray:
        """Return a picture of the maze from above, with the goal in green and the agent in blue, shape (height, width, 3)."""
        cells = np.full((3, self.corridor_length + 1, 3), _WALL, dtype=np.uint8)
        cells[1], cells[:, -1] = _FLOOR, _FLOOR
        cells[0 if self.goal == NORTH else 2, -1] = _GOAL
        cells[1, self.position] = _AGENT
        return cells.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)

    def _observation(self) -> np.ndarray:
        if self.position == self.corridor_length:
            return np.array(_JUNCTION, dtype=np.float32)
        return np.array(_SIGNALS[self.goal] if self.position == 0 else _CORRIDOR, dtype=np.float32)
