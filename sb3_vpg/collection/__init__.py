"""From the environment to a full rollout buffer with advantages."""
