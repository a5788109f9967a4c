"""The two optimisers of a policy: which parameters each holds, and the steps they take."""
