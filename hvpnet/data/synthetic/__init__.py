"""picture-tweets, the generated data set: its words, its pictures, and its files."""
