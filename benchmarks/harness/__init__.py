"""What the benchmark programs share: measuring, reports, cached runs, and processes that are killed."""
