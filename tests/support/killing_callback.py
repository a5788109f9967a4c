"""A callback that sends signals to its own process, for ``-params callback:...``."""

import os
import signal

from stable_baselines3.common.callbacks import BaseCallback

VARIABLE = "SB3_VPG_ACCIDENT"


class Accident(BaseCallback):
    """
    Sends signals at a number of steps, in the middle of a rollout. The environment variable gives the number and the signals,
    such as ``"1000 SIGTERM"`` or ``"1000 SIGINT SIGINT"``; with ``group`` at the end they are sent to the process group, as by
    Ctrl-C in a terminal. Without the variable nothing happens.
    """

    def _on_step(self) -> bool:
        when, *names = os.environ.get(VARIABLE, "0").split()
        if int(when) and self.num_timesteps - self.training_env.num_envs < int(when) <= self.num_timesteps:
            send = os.killpg if names[-1] == "group" else os.kill
            for name in names:
                if name != "group":
                    send(os.getpgid(0) if send is os.killpg else os.getpid(), getattr(signal, name))
        return True
