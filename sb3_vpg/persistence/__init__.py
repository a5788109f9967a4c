"""Models on disk, without pickles."""
