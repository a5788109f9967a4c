"""Texts of a report that explain its tables and figures."""

HYPERPARAMETERS = (
    "Hyperparameters from the files that the zoo reads; each title has the steps that they are made for. Those of VPG, "
    "MaskableVPG and RecurrentVPG are ours, and the files in hyperparams/ say how each was chosen: none by its scores on "
    "seeds below 100. However, older ones for VPG on CartPole-v1 and Acrobot-v1 had been run on such seeds, and their "
    "results were a reason to search again, on other seeds. Default hyperparameters are not tuned, and RandomSearch has "
    "none to tune. Those of the other algorithms come with the zoo, whose files mark the tuned ones, but do not name the "
    "seeds."
)
OVERALL = (
    "Scores of the finished agents over all runs on all environments, normalised with the references below. IQM: "
    "interquartile mean, without the lowest and highest quarter of all runs, rounded down (six of ten runs remain). An "
    "environment with most of its runs in these quarters has little influence on the IQM, but full influence on the mean and "
    "the optimality gap. Median: median over environments of the means over runs. Optimality gap: mean shortfall below 1."
)
FINALS = "Final return of the finished agents on each environment: IQM [95%], and the steps of the training. Bold: the best."
CURVES = (
    "Interquartile means over runs, with intervals. Each evaluation of a run has few episodes. Dashed: the threshold. All "
    "curves begin with the return of random actions. An algorithm that stops before its steps are used up, as RandomSearch "
    "may, keeps its final return. Values that are further below random actions than the threshold is above them are not "
    "drawn."
)
LOSSES = "Every final return, area under the curve, point of a learning curve and CPU time in which {first} is not the best."
TABLES = (
    "Steps: environment steps of the training, which ends with a complete rollout. Final return: mean over episodes that are "
    "the same for all agents, which makes them easier to compare; the intervals do not cover the choice of these episodes. "
    "Area under the curve: its mean height over the steps. ±: standard deviation over runs. Seconds: time of the process, "
    "with imports and all evaluations; runs that were stopped and resumed are left out, because their time is unknown. Wall "
    "seconds also depend on what else the machine runs. Bold: the best."
)
EFFICIENCY = "Interquartile mean over runs and environments, against the percentage of the steps."
PROFILES = "Fraction of runs that score above τ. The area under a profile is the mean score."
IMPROVEMENT = (
    "Probability that a random run of one algorithm scores higher than a random run of the other, averaged over "
    "environments. A tie counts as one half."
)
FOLDER = "A comparison needs a folder of its own: -f FOLDER (default: logs/comparison)."
REFERENCES = "Normalised score: (return - random) / (threshold - random)."
