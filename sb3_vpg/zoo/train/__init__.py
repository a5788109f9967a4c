"""The command ``sb3-vpg train``, and what ``optimize`` shares with it."""
