"""Ask a service about the lines of a text file, and print an answer for each: python client.py URL FILE.

The bearer token, if the service asks for one, is in the environment variable HVPNET_TOKEN.
"""

import os
import sys
from pathlib import Path

from hvpnet import Client, EntityResult, Rejection, Tweet


def main(url: str, file: Path) -> int:
    """Print the entities of every line; exit code 1 if a line was rejected."""
    rejected = 0
    with Client(url, token=os.environ.get("HVPNET_TOKEN")) as client, file.open(encoding="utf-8") as lines:
        texts = (line.strip() for line in lines)
        for number, answer in enumerate(client.stream(Tweet(text=text) for text in texts), start=1):
            if isinstance(answer, Rejection):
                rejected += 1
                print(f"{number}: {answer.type}: {answer.message}", file=sys.stderr)
            elif isinstance(answer, EntityResult):
                found = ", ".join(f"{entity.text} ({entity.type}, {entity.score:.2f})" for entity in answer.entities)
                print(f"{number}: {found or 'no entities'}")
    return 1 if rejected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
