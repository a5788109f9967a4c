"""Texts of a report that explain its tables and figures."""

TUNED = (
    "Entries of the files that the zoo reads, with the steps that each has there and is made for. Those of VPG are ours, in "
    "hyperparams/vpg.yml, which says how each was chosen: none was picked by its scores on seeds below 100, but older ones "
    "for CartPole-v1 and Acrobot-v1 had been run on such seeds, and what came out was a reason to search again, on others. "
    "The default entry was not tuned at all, and for RandomSearch there is nothing to tune. Those of other algorithms come "
    "with the zoo, which marks the tuned ones in its files, but does not say on which seeds."
)
OVERALL = (
    "Scores of the finished agents over all runs on all environments, normalised by the references below. IQM: mean without "
    "the lowest and the highest quarter of all runs, rounded down (of ten, six remain); an environment where most runs are "
    "among those has hardly a say in it, but in the mean and the gap. Median: over the environments, of the means over runs. "
    "Optimality gap: what is missing to 1."
)
CURVES = (
    "Interquartile means over runs with their intervals; each run is looked at in few episodes at a time. Dashed: the "
    "threshold. All begin with random actions; an agent that is finished before its steps are spent (RandomSearch, once it "
    "has found) stays what it is. What falls further below random actions than the threshold is above them is not drawn."
)
LOSSES = "Every final return, area under the curve, point of a learning curve and CPU time in which {first} is not the best."
TABLES = (
    "Steps: of the training, which ends with a whole rollout. Final return: over episodes that are the same for all agents, "
    "which helps to compare them; that others might be easier or harder is in no interval. Area under the curve: its mean "
    "height over the steps. ±: standard deviation over runs. Seconds: of the whole process, with imports and all "
    "evaluations, without runs that were stopped and resumed, of which they are not known; wall seconds also depend on what "
    "else the machine had to do. Bold: the best."
)
EFFICIENCY = "Interquartile mean over runs and environments, against the share of the steps."
PROFILES = "The fraction of runs that score above τ; the area under a profile is the mean."
IMPROVEMENT = "A random run of one against a random run of the other, averaged over environments; a tie counts half."
MADE = "In a folder of its own, which -f names (logs/comparison where it does not)."
REFERENCES = "Normalised score: (return - random) / (threshold - random)."
