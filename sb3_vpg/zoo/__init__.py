"""
rl-zoo3 with our algorithms. rl_zoo3 and torch are imported only when they are needed: the import takes seconds, and rl_zoo3
replaces ``gymnasium.wrappers.TimeLimit`` for the whole process.
"""


def register() -> None:
    """
    Add our algorithms to the zoo's tables, for a program that calls rl_zoo3 itself. It may be called twice.

    The zoo looks for hyperparameters in its own package. Pass ours with ``config=str(hyperparams_file("vpg"))``, or on the
    zoo's command line with ``-conf sb3_vpg.zoo.hyperparams``. The command line ``sb3-vpg`` registers and does this by itself.
    """
    from sb3_vpg.zoo import registration

    registration.register()
