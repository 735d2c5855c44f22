"""What Ray Train's controller calls while it watches workers; imports Ray, so import it late."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from baltoro.core.errors import TrainingError
from baltoro.jobs.training.failures import Failure, reports_of_errors

_WRITING_SECONDS = 300.0

_logger = logging.getLogger(__name__)


class FailureCallback(UserCallback):  # type: ignore[misc]
    """Has the desk write down a failure while the failed workers still stand.

    Args:
        desk: the actor.
    """

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Gather and write.

        Raises:
            TrainingError: workers started again would meet the same; Ray Train then starts none.
        """
        del run_context
        try:
            failure: Failure = ray.get(
                self._desk.close.remote(reports_of_errors(worker_exceptions)), timeout=_WRITING_SECONDS
            )
        except RayError as error:
            # A failure that cannot be written down is no reason not to start again.
            _logger.warning("the desk does not answer: %s", error)
            return
        if failure.final:
            raise TrainingError(failure.sentence)


class LeaveBeforeResize(ControllerCallback):  # type: ignore[misc]
    """Lets elastic workers take a checkpoint before they are replaced by more of them.

    Args:
        desk: the actor.
        seconds: that they get.
    """

    def __init__(self, desk: Any, seconds: float) -> None:
        self._desk = desk
        self._seconds = seconds

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Ask workers that run to leave, and wait until they have."""
        del resize_decision
        ray.get(self._desk.ask_to_leave.remote(self._seconds))
