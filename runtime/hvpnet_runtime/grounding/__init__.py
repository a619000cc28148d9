"""Objects found in a picture."""
