"""Load on `hvpnet serve`, on loopback: its capacity, how it answers at 50, 80 and 120 % of it, and what batching gains.

    python benchmarks/load/run.py BUNDLE --out benchmarks/results/NAME.json [--seconds 300] [--backend …]

The load generator is Locust (`pip install locust`). It runs on the same machine, so it costs the service some CPU. It
rounds latencies to two digits from 100 ms on.
"""

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processes import pss_mib

from hvpnet.bench.machine import describe_machine
from hvpnet.bench.statistics import Summary
from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet_runtime.bundle import Bundle

TWEETS = 2000
PERIOD = 30  # seconds between two tweets of one client at a fixed rate, at most; it gives up on an answer after as long
MOST_CLIENTS = 200  # at a fixed rate; the service takes 256 connections of one address
PATIENCE = 300  # seconds for the service to start, and to stop


@contextmanager
def serve(bundle: Path, backend: str, settings: str) -> Iterator[tuple[str, int]]:
    """`hvpnet serve` on a free port, until the end; its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "settings.toml", Path(folder) / "stderr"
        file.write_text(settings, encoding="utf-8")
        command = [str(Path(sys.executable).with_name("hvpnet")), "serve", str(bundle), "--settings", str(file)]
        command += ["--port", str(port), "--backend", backend]
        with log.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen(command, stderr=stderr)
        try:
            wait_until_serving(process, log)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            stop(process)


def wait_until_serving(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while "hvpnet: serving" not in (said := log.read_text("utf-8")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the service did not start: {said}")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def locust(url: str, bodies: Path, clients: int, period: float, seconds: float) -> dict[str, Any]:
    """One run of the load generator: rates and latencies, see `summary`."""
    command = [
        *(sys.executable, "-m", "locust", "--headless", "--json", "--only-summary", "--skip-log"),
        *("--locustfile", str(Path(__file__).with_name("locustfile.py")), "--host", url),
        *("--users", str(clients), "--spawn-rate", str(clients), "--run-time", f"{seconds:.0f}s"),
        *("--exit-code-on-error", "0"),
    ]
    environment = os.environ | {"HVPNET_BODIES": str(bodies), "HVPNET_PERIOD": str(period)}
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return summary({entry["name"]: entry for entry in json.loads(found.stdout)}, seconds)


def summary(entries: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Rates and latencies, in milliseconds, of the generator's requests by name."""
    answered, shed = entries.get("/v1/extract", {}), entries.get("429", {})
    failed = answered.get("num_failures", 0)
    return {
        "seconds": seconds,
        "answered": answered.get("num_requests", 0) - failed,
        "answered_per_second": round((answered.get("num_requests", 0) - failed) / seconds, 2),
        "shed_with_429": shed.get("num_requests", 0),
        "failed": failed,
        "latency_ms": latencies(answered),
        "latency_of_429_ms": latencies(shed),
    }


def latencies(entry: dict[str, Any]) -> dict[str, float] | None:
    times = [float(time) for time, count in entry.get("response_times", {}).items() for _ in range(count)]
    return asdict(Summary.of(times)) if times else None


def write_bodies(out: Path, folder: Path) -> None:
    """One request a line: a tweet of picture-tweets with its pictures, each picture new except for one in ten."""
    split = load_split(write_picture_tweets(folder, "ner", Sizes(train=1, dev=1, test=TWEETS)), "test")

    def text(picture: Any) -> str:
        return base64.b64encode(Path(picture).read_bytes()).decode()

    with out.open("w", encoding="utf-8") as file:
        for example in split.examples:
            tweet = example.tweet
            message = {
                "words": tweet.words,
                "image": text(tweet.image),
                "objects": list(map(text, tweet.objects or ())),
            }
            file.write(json.dumps({"tweets": [message]}) + "\n")


def settings(options: argparse.Namespace, batch: int) -> str:
    precision = f'precision = "{options.precision}"\n' if options.precision else ""
    limits = f"limits = {{queue = {options.queue}, tweets = 1}}\n"
    return f"cache_bytes = 0\n{precision}{limits}batching = {{size = {batch}}}\n"


def batching_ratio(options: argparse.Namespace, bodies: Path) -> dict[str, Any]:
    """Saturated throughput of two services, one batching and one not, in turns; the ratio of each pair."""
    with (
        serve(options.bundle, options.backend, settings(options, options.batch)) as (batched, _),
        serve(options.bundle, options.backend, settings(options, 1)) as (single, _),
    ):
        rates: dict[str, list[float]] = {"batched": [], "one_at_a_time": []}
        for _ in range(options.pairs):
            for name, url in (("batched", batched), ("one_at_a_time", single)):
                found = locust(url, bodies, options.queue, 0, options.seconds / 10)
                rates[name].append(found["answered_per_second"])
    ratios = sorted(a / b for a, b in zip(*rates.values(), strict=True))
    return {"answered_per_second": rates, "ratios": [round(ratio, 3) for ratio in ratios]}


def loads(options: argparse.Namespace, bodies: Path) -> dict[str, Any]:
    """Each load at a fixed rate of arrivals, right after the capacity it is a share of, by saturation."""
    seconds, found = options.seconds / 5, {}
    with serve(options.bundle, options.backend, settings(options, options.batch)) as (url, pid):
        locust(url, bodies, options.queue, 0, seconds / 2)  # warms up
        for load in options.loads:
            capacity = locust(url, bodies, options.queue, 0, seconds)["answered_per_second"]
            period = min(PERIOD, MOST_CLIENTS / (load * capacity))
            clients = max(1, round(load * capacity * period))
            memory = pss_mib(pid)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            answers = locust(url, bodies, clients, period, options.seconds)
            with urllib.request.urlopen(f"{url}/readyz") as ready:
                is_ready = json.load(ready)["status"] == "ready"
            at = {
                "started": started,
                "capacity_per_second": capacity,
                "offered_per_second": round(clients / period, 2),
                **answers,
                "ready_afterwards": is_ready,
                "pss_mib": [memory, pss_mib(pid)],  # before and after
            }
            found[f"{load:.0%}"] = at
            print(json.dumps(at), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300, help="of each of the three loads (default: 300)")
    parser.add_argument("--loads", type=float, nargs="+", default=(0.5, 0.8, 1.2), help="as shares of the capacity")
    parser.add_argument("--pairs", type=int, default=4, help="of runs with and without batching, one after the other")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", help="of the graphs (default: as the service chooses)")
    parser.add_argument("--batch", type=int, default=16, help="tweets in one run of the engine, at most")
    parser.add_argument(
        "--queue",
        type=int,
        default=16,
        help="the service's limit of accepted tweets (`queue` in its settings, there 256 by default), and so how long "
        "an answer can take; capacity is measured with as many clients (default: 16)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bodies = Path(scratch) / "bodies.jsonl"
        write_bodies(bodies, Path(scratch) / "tweets")
        result = {
            "machine": describe_machine(),
            "conditions": "service and load generator on one machine; one tweet a request; no prefix cache",
            "sizes": asdict(Bundle.load(options.bundle).sizes),
            "backend": options.backend,
            "precision": options.precision,
            "batch": options.batch,
            "queue": options.queue,
            "loads": loads(options, bodies),
            "batching": batching_ratio(options, bodies),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
