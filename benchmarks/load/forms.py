"""The forms of the service under one load generator, and `Pipeline` beside them: latency, rate, memory, start.

    python benchmarks/load/forms.py BUNDLE --out benchmarks/results/NAME.json [--triton URL PID]

The load generator is wrk (https://github.com/wg/wrk), on the same machine; of the services, only the one that is asked
does anything. Pictures were seen before. A Triton server is measured if it runs, with the bundle's self-contained form,
`hvpnet triton BUNDLE --form self-contained`, as the model `hvpnet`.
"""

import argparse
import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from processes import cpu_seconds, pss_mib

from hvpnet import Pipeline, Tweet
from hvpnet.bench.machine import describe_machine
from hvpnet.data import Sizes, load_split, write_picture_tweets

FORMS = {"one process": (), "ray": ("--ray",)}
CLIENTS = (1, 32)
TWEETS = 16  # distinct
PORT = 18_432
ROUNDS = 2
CALLS = 200  # of one client in a row
STREAMED = 2_000
PATIENCE = 300

SCRIPT = """
local folder, count, path = os.getenv("BODIES"), tonumber(os.getenv("COUNT")), os.getenv("ROUTE")
local bodies, headers, number = {}, {}, 0
for each = 1, count do
  local file = io.open(folder .. "/" .. (each - 1), "rb")
  bodies[each], headers[each] = file:read("*a"), {}
  file:close()
  for line in io.lines(folder .. "/" .. (each - 1) .. ".headers") do
    local name, value = line:match("(.-): (.*)")
    headers[each][name] = value
  end
end
function request()
  number = number % count + 1
  return wrk.format("POST", path, headers[number], bodies[number])
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, errors.status,
    errors.timeout + errors.read + errors.connect, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Requests:
    """Bodies with their headers, as the load generator's script reads them."""

    folder: Path
    route: str

    def write(self, bodies: Sequence[tuple[bytes, dict[str, str]]]) -> "Requests":
        self.folder.mkdir()
        (self.folder / "script.lua").write_text(SCRIPT, encoding="utf-8")
        for number, (body, headers) in enumerate(bodies):
            (self.folder / str(number)).write_bytes(body)
            lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
            (self.folder / f"{number}.headers").write_text(lines, encoding="utf-8")
        return self


def wrk(url: str, requests: Requests, clients: int, seconds: int) -> dict[str, Any]:
    """Answers per second, and latencies in milliseconds."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["-s", str(requests.folder / "script.lua"), url]
    environment = {"BODIES": str(requests.folder), "COUNT": str(TWEETS), "ROUTE": requests.route}
    said = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", said.stdout)
    if found is None:
        raise SystemExit(f"wrk said nothing that is known: {said.stdout}")
    answered, micros, refused, failed, p50, p99 = map(int, found.groups())
    return {
        "answers_per_second": round(1e6 * (answered - refused) / micros, 1),
        "p50_ms": p50 / 1e3,
        "p99_ms": p99 / 1e3,
        "refused": refused,
        "failed": failed,
    }


@contextmanager
def serving(bundle: Path, form: Sequence[str]) -> Iterator[tuple[str, int, float]]:
    """`hvpnet serve`: its address, its process, and the seconds from the command until it is ready."""
    command = [str(Path(sys.executable).with_name("hvpnet")), "serve", str(bundle), "--port", str(PORT), *form]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not is_ready():
            if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                raise SystemExit(f"{' '.join(command)} does not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{PORT}", process.pid, round(time.perf_counter() - start, 2)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def is_ready() -> bool:
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def one_client(pipeline: Pipeline, tweets: Sequence[Tweet], bodies: Sequence[str]) -> dict[str, Any]:
    """The same tweets, one after the other, by HTTP on one connection and by the library, in turns."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)

    def ask(number: int) -> None:
        connection.request("POST", "/v1/extract", bodies[number], {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200 or not response.read():
            raise SystemExit(f"the service answers {response.status}")

    ways: dict[str, Callable[[int], Any]] = {"service": ask, "pipeline": lambda number: pipeline([tweets[number]])}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(2 * ROUNDS + 1):
        connection.close()  # or the service may, while the library has its turn
        connection.connect()
        for name, call in ways.items():
            for number in range(CALLS):
                start = time.perf_counter()
                call(number % len(tweets))
                if round_:  # the first warms up
                    times[name].append(1e3 * (time.perf_counter() - start))
    found = {
        name: {f"p{share}_ms": round(float(np.percentile(t, share)), 3) for share in (50, 99)}
        for name, t in times.items()
    }
    return found | {
        "more_ms": {key: round(found["service"][key] - found["pipeline"][key], 3) for key in found["service"]}
    }


LIBRARY = """
import json, re, sys, time
start = time.perf_counter()
from hvpnet import Pipeline, Tweet
imported = time.perf_counter()
pipeline = Pipeline.load(sys.argv[1])
loaded = time.perf_counter()
import base64
tweets = [json.loads(line)["tweets"][0] for line in open(sys.argv[2])]
decode = base64.b64decode
tweets = [Tweet(words=t["words"], image=decode(t["image"]), objects=[decode(o) for o in t["objects"]]) for t in tweets]
pipeline(tweets)
took = []
for _ in range(3):
    begin = time.perf_counter()
    count = sum(1 for _ in pipeline.stream(tweets * (int(sys.argv[3]) // len(tweets)), 16))
    took.append(count / (time.perf_counter() - begin))
pss = re.search(r"^Pss:\\s+(\\d+)", open("/proc/self/smaps_rollup").read(), re.MULTILINE)[1]
print(json.dumps({"import_seconds": imported - start, "load_seconds": loaded - imported, "pss_mib": int(pss) / 1024,
                  "stream_tweets_per_second": took}))
"""


def library(bundle: Path, bodies: Path) -> dict[str, Any]:
    """`Pipeline` in a process of its own: seconds until it is loaded, memory, and tweets per second of `stream`."""
    command = [sys.executable, "-c", LIBRARY, str(bundle), str(bodies), str(STREAMED)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def triton_requests(tweets: Sequence[Tweet], folder: Path) -> Requests:
    """The tweets as tensors of the self-contained form."""
    from tritonclient.http import InferenceServerClient, InferInput

    bodies = []
    for tweet in tweets:
        crops = list(tweet.objects or ()) or [b""]
        rows = {"TWEET": [json.dumps({"words": list(tweet.words)}).encode()], "IMAGE": [tweet.image], "OBJECTS": crops}
        tensors = []
        for name, row in rows.items():
            tensors.append(InferInput(name, [1, len(row)], "BYTES"))
            tensors[-1].set_data_from_numpy(np.array([row], dtype=np.object_))
        body, length = InferenceServerClient.generate_request_body(tensors)
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
        bodies.append((body, headers))
    return Requests(folder, "/v2/models/hvpnet/infer").write(bodies)


def loads(url: str, requests: Requests, pid: int, seconds: int) -> dict[str, Any]:
    """Every number of clients, with the CPU time of an answer by process, and the memory afterwards."""
    found: dict[str, Any] = {}
    for clients in CLIENTS:
        before = cpu_seconds(pid)
        run = wrk(url, requests, clients, seconds)
        answers = max(1.0, run["answers_per_second"] * seconds)
        spent = {name: 1e3 * taken / answers for name, taken in (cpu_seconds(pid) - before).items()}
        run["cpu_ms_per_answer"] = {name: round(ms, 2) for name, ms in spent.items() if ms >= 0.1}
        found[f"{clients} clients"] = run
    return found | {"pss_mib": pss_mib(pid)}


def write_bodies(folder: Path) -> tuple[list[Tweet], list[str]]:
    split = load_split(write_picture_tweets(folder / "data", "ner", Sizes(train=1, dev=1, test=TWEETS)), "test")
    tweets, bodies = [], []
    for example in split.examples:
        given = example.tweet
        image, objects = Path(given.image).read_bytes(), [Path(crop).read_bytes() for crop in given.objects or ()]
        tweets.append(Tweet(words=given.words, image=image, objects=objects))
        pictures = {
            "image": base64.b64encode(image).decode(),
            "objects": [base64.b64encode(o).decode() for o in objects],
        }
        bodies.append(json.dumps({"tweets": [{"words": list(given.words), **pictures}]}))
    return tweets, bodies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=10, help="of each run of the load generator (default 10)")
    parser.add_argument("--triton", nargs=2, metavar=("URL", "PID"), help="a Triton server that runs")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": describe_machine(), "bundle": options.bundle.name, "library": []}
    result["forms"] = {name: [] for name in (*FORMS, *["triton"] * bool(options.triton))}
    with tempfile.TemporaryDirectory() as scratch:
        tweets, lines = write_bodies(Path(scratch))
        json_lines = Path(scratch) / "tweets.jsonl"
        json_lines.write_text("\n".join(lines) + "\n", encoding="utf-8")
        headers = {"Content-Type": "application/json"}
        requests = Requests(Path(scratch) / "json", "/v1/extract").write([(line.encode(), headers) for line in lines])
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
            result["library"].append(library(options.bundle, json_lines))
            for name, form in FORMS.items():
                with serving(options.bundle, form) as (url, pid, ready):
                    run: dict[str, Any] = {"ready_seconds": ready}
                    if name == "one process":
                        with Pipeline.load(options.bundle) as pipeline:
                            run["one_client"] = one_client(pipeline, tweets, lines)
                    result["forms"][name].append(run | loads(url, requests, pid, options.seconds))
            if options.triton:
                url, pid = options.triton[0], int(options.triton[1])
                asked = triton_requests(tweets, Path(scratch) / f"triton-{number}")
                result["forms"]["triton"].append(loads(url, asked, pid, options.seconds))
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
