"""Results on disk, and how many problems at once get there."""
