"""Emissions to tags, entities and their scores, on the CPU."""
