"""Objects in a picture: how pictures reach a grounder and its boxes come back."""
