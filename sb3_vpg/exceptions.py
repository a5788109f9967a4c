"""The errors that a user may want to catch."""


class DistributionError(ValueError):
    """The policy's distribution over actions has NaN or infinite parameters."""


class RefusedFileError(ValueError):
    """
    A file is damaged, or reading it would run code or take too much memory.

    :param reason: names the file, the member and what is wrong
    :param advice: what to do, as Python code; the command line replaces it by its own flags
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        self.reason, self.advice = reason, advice
        text = f"{reason}; {advice}" if advice else reason
        # The text may quote the file: escape control sequences for the terminal, and limit the length
        shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:2000])
        super().__init__(shown)


class EndlessEpisodeError(ValueError):
    """An environment does not finish an episode that the update needs."""


class UnsoundNumberError(ValueError):
    """
    An environment has returned a number that is NaN, infinite or huge.

    :param quantity: what the number is, such as "reward"
    :param number: its value
    :param env: index of the environment
    :param step: number of the step in the rollout, from 1; 0 if the number came before the first step
    :param remark: appended to the message, such as the reason why the number is too large
    """

    def __init__(self, quantity: str, number: float, env: int, step: int, remark: str = "") -> None:
        super().__init__(f"the {quantity} of environment {env} is {number:g}{remark}")
        self.step = step

    def with_timestep(self, n_before: int, n_envs: int) -> str:
        """Return the message with the step and the timestep. ``n_before``: ``num_timesteps`` at the start of the rollout."""
        where = f"at step {self.step}" if self.step else "at the start"
        return f"{self} {where} of this rollout (timestep {n_before + self.step * n_envs:,})"


class EnvironmentFailedError(RuntimeError):
    """An environment has raised an error in ``step`` or ``reset``, or its process has died; the message names it."""


class ActionMaskError(ValueError):
    """
    An action mask has the wrong shape, is not made of true and false, or allows no action, or a policy ignores it. The message
    says which; in ``learn``, it also names environment and step.
    """


class ForbiddenActionError(ActionMaskError):
    """A policy has chosen an action that the mask does not allow."""


class VecEnvContractError(ValueError):
    """A vector environment has not returned data that it should; the message names what is missing."""


class TooLargeError(ValueError):
    """A file's settings describe a model that is larger than the file's weights."""


class NotPlainError(TypeError):
    """A value that cannot be saved without a pickle; the text names its type."""


class NotFiniteError(ValueError):
    """A loss, a gradient or a weight is NaN or infinite; the message names it."""


class DivergedError(ValueError):
    """The policy computes NaN or infinity although the environment does not; other hyperparameters may help."""


class UnknownClassError(ValueError):
    """A file names a class that this program has not imported; the message says how to import it."""


class ExportError(ValueError):
    """An agent cannot be exported: torch cannot trace its policy, or the file would not act as the agent does."""


class ProcessLostError(RuntimeError):
    """Under torchrun, another process has ended; the message names it if it ran on the same machine."""


class MainProcessError(RuntimeError):
    """Under torchrun, the first process has raised an error, which it reports; the others raise this one."""


POLICY_ADVICE = (
    "Look for large observations and rewards (VecNormalize scales them), or lower learning_rate, vf_learning_rate or "
    "max_grad_norm"
)
ENVIRONMENT_ADVICE = (
    "Correct what the environment computes there (VecCheckNan(env, raise_exception=True) shows the action too). If the number "
    "is only too large, scale it down with VecNormalize"
)
"""What to try if the policy computes an invalid number, and if the environment does."""


def training_error(
    what: str, n_updates: int, n_steps: int, advice: str = POLICY_ADVICE, kind: type[ValueError] = ValueError
) -> ValueError:
    """
    Return the error that stops training after ``n_updates`` complete iterations. Its message names the cause and what to try.
    It is a ``DivergedError`` with ``POLICY_ADVICE``, else of this kind, since the policy is not to blame.
    """
    verb, kind = ("diverged", DivergedError) if advice == POLICY_ADVICE else ("stopped", kind)
    return kind(
        f"Training {verb} in iteration {n_updates + 1} (after {n_steps} steps): {what}. The weights are those from before "
        f"this iteration. {advice}"
    )
