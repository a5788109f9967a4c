"""A callback that stops its own process where a test wants it, named in ``-params callback:...``."""

import os
import signal

from stable_baselines3.common.callbacks import BaseCallback

VARIABLE = "SB3_VPG_ACCIDENT"


class Accident(BaseCallback):
    """
    Sends signals when a number of steps is reached, in the middle of a rollout. The environment variable says which and when:
    ``"1000 SIGTERM"``, or ``"1000 SIGINT SIGINT"``; with ``group`` at its end they go to the whole process group, as a
    terminal's Ctrl-C does. Without the variable nothing happens.
    """

    def _on_step(self) -> bool:
        when, *names = os.environ.get(VARIABLE, "0").split()
        if int(when) and self.num_timesteps - self.training_env.num_envs < int(when) <= self.num_timesteps:
            send = os.killpg if names[-1] == "group" else os.kill
            for name in names:
                if name != "group":
                    send(os.getpgid(0) if send is os.killpg else os.getpid(), getattr(signal, name))
        return True
