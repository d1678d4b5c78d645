"""The service as two replicas of Ray Serve over one store: each answers for what the other was left.

    OMP_NUM_THREADS=1 python benchmarks/service_ray.py [--replicas 2] [--requests 20]     # needs "ray[serve]"

With more machines than this one, --database and --blobs of the configuration name a PostgreSQL and an S3 that all reach.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve

from metriloc.service.config import ServiceConfig

EXAMPLE = Path(__file__).resolve().parents[1] / "metriloc" / "data" / "example"


def deployment(config: ServiceConfig, replicas: int) -> Any:
    """The service for ``serve.run``."""

    def build() -> Any:
        from metriloc.service.app import create_app

        return create_app(config)

    @serve.deployment(num_replicas=replicas, ray_actor_options={"num_cpus": 0.1})
    @serve.ingress(build)
    class Metriloc:
        pass

    return Metriloc.bind()  # type: ignore[attr-defined]


def main() -> int:
    """Print one line; 1 where an answer is missing or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--method", default="identity")
    args = parser.parse_args()
    photo = ("photo", ("photo.jpg", (EXAMPLE / "reference.jpg").read_bytes()))
    with tempfile.TemporaryDirectory() as folder:
        config = ServiceConfig(data=Path(folder) / "data", method=args.method, rate="1000000/hour", queue=20)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": 8765})
        serve.run(deployment(config, args.replicas))
        answers, statuses = set(), set[int]()
        with httpx.Client(base_url="http://127.0.0.1:8765", timeout=120) as http:
            end = time.monotonic() + 300
            while time.monotonic() < end and len(list(config.data.glob("spool/*"))) < args.replicas:
                time.sleep(0.2)
            while time.monotonic() < end and http.get("/readyz").status_code != 200:
                time.sleep(0.2)
            for _ in range(args.requests):
                made = http.post("/v1/anchors", files=[photo])
                found = http.post(f"/v1/anchors/{made.json()['id']}/poses", files=[photo])
                statuses |= {made.status_code, found.status_code}
                answers.add(found.text)
            count = len(http.get("/v1/anchors", params={"count": 1000}).json())
        replicas = len(list(config.data.glob("spool/*")))
        serve.shutdown()
        ray.shutdown()
    print(
        f"{replicas} replicas, {args.requests} anchors and poses: statuses {sorted(statuses)}, {len(answers)} answer(s), "
        f"{count} anchors kept"
    )
    return 0 if statuses == {200, 201} and len(answers) == 1 and count == args.requests else 1


if __name__ == "__main__":
    raise SystemExit(main())
