"""Evaluations on the machines of a Dask cluster (extra ``[cluster]``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self

from simulator.spec.errors import Problem, SpecError
from simulator.sweep.choices import Constraint
from simulator.sweep.evaluation import Evaluation, evaluate_all
from simulator.sweep.execute import chunks
from simulator.sweep.space import Layout

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

    def run(
        self, layouts: Iterable[Layout], after: Sequence[Constraint], chunk: int
    ) -> Iterator[list[Evaluation]]:
        """Finished evaluations, a chunk at a time; what a dying worker had begun is done elsewhere."""
        from distributed import as_completed  # noqa: PLC0415  an extra

        waiting = chunks(layouts, chunk)
        begun = [self._submit(part, after) for part in islice(waiting, 2 * self.workers)]
        running = as_completed(begun, loop=self._client.loop)
        for future in running:
            yield future.result()
            for part in islice(waiting, 1):
                running.add(self._submit(part, after))

    def _submit(self, part: list[Layout], after: Sequence[Constraint]) -> Any:
        return self._client.submit(evaluate_all, part, after, pure=False, retries=RETRIES)
