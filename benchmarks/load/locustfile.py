"""Clients that keep to a schedule: each sends a tweet with its pictures once a period, whatever the service does.

So the rate of arrivals does not fall when answers become slow (an open model, without coordinated omission), as long as
an answer takes less than a period. Every client begins at a random moment of its first period.
"""

import itertools
import json
import os
import random
from pathlib import Path

from gevent import sleep
from locust import FastHttpUser, constant_throughput, task

BODIES = [line.encode() for line in Path(os.environ["HVPNET_BODIES"]).read_text("utf-8").splitlines()]
PERIOD = float(os.environ["HVPNET_PERIOD"])

_next = itertools.cycle(BODIES)


class Client(FastHttpUser):
    wait_time = constant_throughput(1 / PERIOD) if PERIOD else lambda _: 0
    network_timeout = connection_timeout = PERIOD or 60

    def on_start(self):
        sleep(random.uniform(0, PERIOD))

    @task
    def extract(self):
        headers = {"Content-Type": "application/json"}
        with self.client.post("/v1/extract", data=next(_next), headers=headers, catch_response=True) as response:
            if response.status_code == 429:
                response.request_meta["name"] = "429"
                response.success()
            elif response.status_code != 200:
                response.failure(f"{response.status_code} {response.text}")
            elif "results" not in json.loads(response.text):
                response.failure("no results")
