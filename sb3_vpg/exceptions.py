"""Every error that a user may want to catch."""


class DistributionError(ValueError):
    """The policy's distribution over actions has NaN or infinite parameters."""


class RefusedFileError(ValueError):
    """
    A file that is damaged, or that asks for more than to be read.

    :param reason: names the file, the member and what is wrong
    :param advice: what the user can do, in the words of Python; a command line replaces it by words about its flags
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        self.reason, self.advice = reason, advice
        text = f"{reason}; {advice}" if advice else reason
        # Much of it may be the file's own words: no control sequence reaches a terminal, and no page is filled
        shown = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[:2000])
        super().__init__(shown)


class EndlessEpisodeError(ValueError):
    """An environment does not finish the episodes that an update waits for."""


class UnsoundNumberError(ValueError):
    """
    An environment has sent a number that is NaN, infinite or huge.

    :param quantity: what it is
    :param number: itself
    :param env: index of the environment
    :param step: steps of the rollout after which it came; 0: it was there at the start
    :param remark: on what makes it too large
    """

    def __init__(self, quantity: str, number: float, env: int, step: int, remark: str = "") -> None:
        super().__init__(f"the {quantity} of environment {env} is {number:g}{remark}")
        self.step = step

    def placed(self, begun: int, n_envs: int) -> str:
        """
        :param begun: timesteps before the rollout
        :return: the text with the step and the timestep
        """
        where = f"at step {self.step}" if self.step else "at the start"
        return f"{self} {where} of this rollout (timestep {begun + self.step * n_envs:,})"


class EnvironmentFailedError(RuntimeError):
    """An environment has raised an error in ``step`` or ``reset``, or its process has died; the text names which."""


class VecEnvContractError(ValueError):
    """A vector environment has not sent what it promised; the text names what is missing."""


class TooLargeError(ValueError):
    """The settings ask for more than the weights of the file fill."""


class NotPlainError(TypeError):
    """A value that only a pickle could hold; its text names the value and its type."""


class NotFiniteError(ValueError):
    """A loss, a gradient or a weight is NaN or infinite; its text names which."""


class DivergedError(ValueError):
    """The policy's numbers are broken, which other hyperparameters may mend; the environment's are not."""


class UnknownClassError(ValueError):
    """A class that a file names, and that this program does not have; its text names it and says how to have it."""


POLICY = (
    "Look for large observations and rewards (VecNormalize scales them), or lower learning_rate, vf_learning_rate or "
    "max_grad_norm"
)
ENVIRONMENT = (
    "Mend what the environment computes there (with VecCheckNan(env, raise_exception=True) around it, SB3 shows the action "
    "as well); what is only too large VecNormalize scales down"
)
"""What to try where the policy's numbers are broken, and where the environment's are."""


def diverged(what: str, n_updates: int, n_steps: int, advice: str = POLICY) -> ValueError:
    """:return: the error with which training stops, saying where it was and what to try"""
    verb, kind = ("diverged", DivergedError) if advice == POLICY else ("stopped", ValueError)
    return kind(
        f"Training {verb} in iteration {n_updates + 1} (after {n_steps} steps): {what}. The weights are those from before "
        f"this iteration. {advice}"
    )
