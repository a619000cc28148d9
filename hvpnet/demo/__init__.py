"""From nothing to a served model in minutes: generated picture-tweets, training, export, prediction, a report."""

from hvpnet.demo.run import run_demo

__all__ = ["run_demo"]
