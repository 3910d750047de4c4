"""What this server counts, in the text format of Prometheus: jobs, nodes, the store, workers, requests, the loop.

What happens is counted as it happens; how things stand is looked up when somebody asks.
"""

from collections import Counter as Counted
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.database.jobs import PRIORITIES, Priority, State
from server.database.tallies import Counts
from server.web.endpoint import endpoint_of
from server.workers.messages import JobResult
from server.workers.pool import PoolStatus

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""What a stranger may choose freely is not to make a new series each time."""
SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 1800.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How things stand when somebody asks.

    Args:
        waiting: jobs that wait and run, by class and state.
        jobs: all jobs, by state.
        store: entries and bytes of the disk store; None where there is none, or it does not answer.
        listeners: how many websockets are open.
    """

    waiting: Mapping[tuple[Priority, State], int]
    jobs: Counts
    pool: PoolStatus
    store: tuple[int, int] | None
    listeners: int


class Metrics:
    """The counters of one server. For its event loop."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._jobs = Histogram(
            "latentloom_job_seconds",
            "Seconds from a job's claim to its end, of its last attempt.",
            ["state"],
            buckets=SECONDS,
            registry=registry,
        )
        self._nodes = Histogram(
            "latentloom_node_seconds",
            "Seconds that steps ran, by the class of the node; steps inside composites count too.",
            ["class_type"],
            buckets=SECONDS,
            registry=registry,
        )
        self._steps = Counter("latentloom_steps", "Steps of jobs, run or reused.", ["how"], registry=registry)
        self._lookups = Counter(
            "latentloom_store_lookups",
            "Look-ups in the store, by the tier that had the answer; none: it has to be made.",
            ["tier"],
            registry=registry,
        )
        self._requests = Counter(
            "latentloom_http_requests", "HTTP requests answered.", ["method", "route", "status"], registry=registry
        )
        self._lag = Histogram(
            "latentloom_event_loop_lag_seconds",
            "How late the event loop came to something that was due.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
            registry=registry,
        )
        self._longest_lag = Gauge(
            "latentloom_event_loop_lag_longest_seconds", "The longest since the last scrape.", registry=registry
        )
        self._longest = 0.0
        # Looked up once: a job may have ten thousand steps.
        self._by_class: dict[str, Histogram] = {}
        ProcessCollector(registry=registry)

    def job_ended(self, state: State, seconds: float, result: JobResult | None = None) -> None:
        """A job is over, after so many seconds with a worker."""
        self._jobs.labels(state).observe(seconds)
        if result is not None:
            self._steps.labels("run").inc(result.ran)
            self._steps.labels("reused").inc(result.reused)
            lookups = result.lookups
            for tier, count in (("memory", lookups.memory), ("disk", lookups.disk), ("none", lookups.missed)):
                self._lookups.labels(tier).inc(count)

    def node_ran(self, class_name: str, seconds: float) -> None:
        """A step has run."""
        series = self._by_class.get(class_name)
        if series is None:
            series = self._by_class[class_name] = self._nodes.labels(class_name)
        series.observe(seconds)

    def answered(self, method: str, route: str, status: int) -> None:
        """A request was answered."""
        self._requests.labels(method if method in METHODS else OTHER, route, str(status)).inc()

    def lagged(self, seconds: float) -> None:
        """The event loop was so late."""
        self._lag.observe(seconds)
        self._longest = max(self._longest, seconds)

    def text(self, standing: Standing | None = None) -> bytes:
        """Everything, for Prometheus to read. May be called in another thread."""
        self._longest_lag.set(self._longest)
        self._longest = 0.0
        text = generate_latest(self._registry)
        if standing is not None:
            now = CollectorRegistry()
            now.register(_Standing(standing))
            text += generate_latest(now)
        return text


class _Standing(Collector):
    """How things stand, as metrics."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def collect(self) -> Iterable[Metric]:
        standing = self._standing
        queue = GaugeMetricFamily("latentloom_queue_jobs", "Jobs that wait and run.", labels=["class", "state"])
        states: tuple[State, ...] = ("queued", "running")
        for priority in PRIORITIES:
            for state in states:
                queue.add_metric([priority, state], standing.waiting.get((priority, state), 0))
        yield queue
        kept = GaugeMetricFamily("latentloom_jobs", "Jobs in the database.", labels=["state"])
        counts = standing.jobs
        for name in ("queued", "running", "done", "failed", "cancelled"):
            kept.add_metric([name], getattr(counts, name))
        yield kept
        if standing.store is not None:
            entries, nbytes = standing.store
            yield GaugeMetricFamily("latentloom_store_entries", "Results on disk.", value=entries)
            yield GaugeMetricFamily("latentloom_store_bytes", "Bytes of results on disk.", value=nbytes)
        yield GaugeMetricFamily("latentloom_websocket_clients", "Open websockets.", value=standing.listeners)
        yield from _workers(standing.pool)


def _workers(pool: PoolStatus) -> Iterable[Metric]:
    states = GaugeMetricFamily("latentloom_workers", "Workers by device and state.", labels=["device", "state"])
    for (device, state), count in Counted((worker.device, worker.state) for worker in pool.workers).items():
        states.add_metric([device, state], count)
    yield states
    memory = GaugeMetricFamily("latentloom_worker_memory_bytes", "Memory of a worker.", labels=["device", "worker"])
    for number, worker in enumerate(pool.workers, 1):
        if worker.rss is not None:
            memory.add_metric([worker.device, str(number)], worker.rss)
    yield memory
    restarts = sum(worker.replaced + sum(worker.deaths.values()) for worker in pool.workers)
    yield CounterMetricFamily(
        "latentloom_worker_restarts", "Workers whose place was taken by others, the dead among them.", value=restarts
    )
    deaths = CounterMetricFamily("latentloom_worker_deaths", "Workers that died.", labels=["cause"])
    for cause, count in pool.deaths.items():
        deaths.add_metric([cause], count)
    yield deaths


METRICS = web.AppKey("metrics", Metrics)


@web.middleware
async def count_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count every answer by its route as it is declared: what stands in a path does not count."""
    status = 500
    try:
        answer = await handler(request)
        status = answer.status
        return answer
    except web.HTTPException as error:
        status = error.status
        raise
    finally:
        endpoint = endpoint_of(request.match_info.handler)
        request.app[METRICS].answered(request.method, endpoint.path if endpoint else OTHER, status)
