"""Work over several processes and machines with Ray Data (extra ``ray``): each worker is built once and takes items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MISSING_RAY = 'runs over machines need Ray: pip install "metriloc[ray]"'


def work_with_ray(
    build: Callable[[], Callable[[Any], str]], items: Sequence[Any], *, workers: int, gpus_per_worker: float = 0
) -> Iterator[str]:
    """What the workers answer to the items, as answers come in. build: makes a worker, in its own process.

    Machines are those of the Ray cluster that ``ray.init`` finds (RAY_ADDRESS), else this one; files must be at the same
    path on all. Raises ImportError, with the pip command, without Ray.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(MISSING_RAY) from error
    if not items:
        return
    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    reference = ray.put((build, list(items)))
    rows = ray.data.from_items([{"item": i} for i in range(len(items))], override_num_blocks=len(items))
    worked = rows.map_batches(
        _Worker,
        fn_constructor_args=(reference,),
        batch_size=1,
        concurrency=workers,
        num_gpus=gpus_per_worker or None,
    )
    for row in worked.iter_rows():
        yield row["answer"]


class _Worker:
    """Lives in a Ray worker."""

    def __init__(self, reference: Any) -> None:
        import ray

        build, self._items = ray.get(reference)
        self._work: Callable[[Any], str] = build()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return {"answer": [self._work(self._items[int(i)]) for i in batch["item"]]}
