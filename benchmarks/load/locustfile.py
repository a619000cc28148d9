"""Clients that keep to a schedule: each sends a tweet with its pictures once a period, whatever the service does.

So the rate of arrivals does not fall when answers become slow (an open model, without coordinated omission), as long as
an answer takes less than a period. Every client has its own moment of the period, drawn at random.
"""

import itertools
import json
import os
import random
import time
from pathlib import Path

from gevent import sleep
from locust import FastHttpUser, constant, task

BODIES = [line.encode() for line in Path(os.environ["HVPNET_BODIES"]).read_text("utf-8").splitlines()]
PERIOD = float(os.environ["HVPNET_PERIOD"])

_next = itertools.cycle(BODIES)


class Client(FastHttpUser):
    wait_time = constant(0)  # Locust's own schedules bring all clients to the same moment of the period
    network_timeout = connection_timeout = PERIOD or 60

    def on_start(self):
        self.due = time.monotonic() + random.uniform(0, PERIOD)

    @task
    def extract(self):
        sleep(max(0, self.due - time.monotonic()))
        self.due += PERIOD
        headers = {"Content-Type": "application/json"}
        with self.client.post("/v1/extract", data=next(_next), headers=headers, catch_response=True) as response:
            if response.status_code == 429:
                response.request_meta["name"] = "429"
                response.success()
            elif response.status_code != 200:
                response.failure(f"{response.status_code} {response.text}")
            elif "results" not in json.loads(response.text):
                response.failure("no results")
