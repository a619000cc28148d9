"""Published scores of predictions, by the eager model or by a bundle."""
