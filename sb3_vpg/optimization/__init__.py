"""The two optimisers of a policy and their steps."""
