"""What ``baltoro verify-resume`` does: rehearse or audit, then publish and track the certificate."""

from __future__ import annotations

from collections.abc import Callable

from baltoro.core.storage import join
from baltoro.jobs.runner import make_tracker
from baltoro.jobs.stages import Context
from baltoro.jobs.verify.audit import audit
from baltoro.jobs.verify.certificate import PAGE, Certificate, publish, track
from baltoro.jobs.verify.rehearsal import rehearse


def certify(context: Context, run: str | None, *, say: Callable[[str], None]) -> tuple[Certificate, str]:
    """Rehearse a recipe or audit a run; returns the certificate and the URI of its page.

    Args:
        context: the recipe.
        run: the run to audit; ``None`` rehearses the recipe.
        say: tells a person how it goes.

    Raises:
        InputError: there is no such run.
        TrainingError: the rehearsal could not be performed.
    """
    # What a rehearsal trained on is gone with it; an audited run's dataset stands under the root.
    certificate, parents = (rehearse(context.recipe, say=say), {}) if run is None else audit(context, run)
    artifact = publish(certificate, context, parents)
    track(certificate, context.recipe, make_tracker(context.recipe), artifact)
    return certificate, join(artifact.uri, artifact.manifest.writer, PAGE)
