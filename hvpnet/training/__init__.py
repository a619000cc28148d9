"""Training by the published recipe."""
