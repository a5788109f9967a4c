"""The commands that push agents to a hub and load them from it."""
