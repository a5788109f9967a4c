"""The command ``sb3-vpg train``."""
