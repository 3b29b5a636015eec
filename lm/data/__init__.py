"""Where text comes from, how it becomes a flat token stream on disk, how that is cut into batches."""
