"""Tweets to token ids and pixels, as the published loaders do it."""
