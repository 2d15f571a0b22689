"""From stored results to numbers: arrays in, numbers out. Nothing in here asks a model."""
