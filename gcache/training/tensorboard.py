"""What TensorBoard shows of a training run: every number of the metrics, and the learned edges as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcache.errors import ConfigError
from gcache.gnn.summary import LearnedEdge
from gcache.inspect.pictures import topology_figure

#: A picture every so many steps.
PICTURE_EVERY = 5


class Board:
    """Event files in a folder.

    Args:
        folder: theirs.
        done: steps that are done already; what an interrupted run had shown of later ones is taken back.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("--tensorboard needs its extra; pip install 'gcache-mas[tensorboard]'") from error
        self._open = lambda: SummaryWriter(str(folder), purge_step=done)
        self._writer: Any = None

    def show(self, metrics: Mapping[str, Any], edges: Sequence[LearnedEdge]) -> None:
        """A step's metrics, and its edges before it. The first step makes the folder: a refused run leaves none."""
        if self._writer is None:
            self._writer = self._open()
        step = int(metrics["step"])
        for name, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
                self._writer.add_scalar(name, value, step)
        for edge in edges:
            self._writer.add_scalar(f"edges/{edge.source} to {edge.target}", edge.probability, step)
        if edges and step % PICTURE_EVERY == 0:
            self._writer.add_figure("topology", topology_figure(edges, f"before step {step + 1}"), step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
