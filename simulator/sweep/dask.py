"""Evaluations on the machines of a Dask cluster (extra ``[cluster]``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from simulator.spec.errors import Problem, SpecError
from simulator.sweep.choices import Constraint
from simulator.sweep.evaluate import evaluate_all
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.families import Take

CONNECT_S = 10.0
RETRIES = 3  # of a chunk whose worker died


class DaskCluster:
    """The workers of a running scheduler, such as ``tcp://10.0.0.1:8786``. Use it as a context manager.

    Raises SpecError where ``distributed`` is not installed, nobody answers, or nobody works there.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client  # noqa: PLC0415  an extra
        except ImportError:
            rule = "needs the package distributed"
            raise SpecError(
                Problem(file="--dask", rule=rule, suggestion="pip install 'stepcast[cluster]'")
            ) from None
        try:
            self._client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            rule = f"no Dask scheduler answers at {address}: {error}"
            raise SpecError(Problem(file="--dask", rule=rule, suggestion="tcp://HOST:8786")) from None
        self.workers = sum(self._client.nthreads().values())
        if not self.workers:
            self._client.close()
            raise SpecError(Problem(file="--dask", rule=f"the scheduler at {address} has no workers"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def run(self, take: Take, after: Sequence[Constraint]) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a part at a time; what a dying worker had begun is done elsewhere."""
        from distributed import as_completed  # noqa: PLC0415  an extra

        places: dict[Any, int] = {}  # of a queue as long as there are workers, whoever they are

        def submit(place: int) -> list[Any]:
            if not (layouts := take(place)):
                return []
            future = self._client.submit(evaluate_all, layouts, after, pure=False, retries=RETRIES)
            places[future] = place
            return [future]

        begun = [future for place in 2 * list(range(self.workers)) for future in submit(place)]
        running = as_completed(begun, loop=self._client.loop)
        for finished in running:
            running.update(submit(places.pop(finished)))
            yield finished.result()
