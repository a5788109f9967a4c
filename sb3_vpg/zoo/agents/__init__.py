"""The commands that play, score and film trained agents."""
