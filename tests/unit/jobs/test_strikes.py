import os
import subprocess
import sys
import textwrap

from baltoro.jobs.training.strikes import (
    PLAN_VARIABLE,
    Strike,
    StrikePlan,
    awaited_outage,
    fallen,
    planned_strikes,
)

STRIKES = (Strike("worker", 3), Strike("all_workers", 5), Strike("storage_outage", 9))


def test_a_plan_reaches_the_driver_through_its_file(tmp_path):
    plan = StrikePlan(str(tmp_path), STRIKES)
    plan.write(tmp_path / "plan.json")
    found = planned_strikes("/run", {PLAN_VARIABLE: str(tmp_path / "plan.json")})
    assert found == StrikePlan(str(tmp_path), STRIKES, "/run", os.getpid())
    assert planned_strikes("/run", {}) is None


def test_fallen_strikes_and_awaited_outages_are_read_from_the_folder(tmp_path):
    plan = StrikePlan(str(tmp_path), STRIKES)
    assert fallen(plan) == ()
    (tmp_path / "strike-1-rank-0").touch()
    assert fallen(plan) == (STRIKES[1],)
    assert awaited_outage(plan) == []
    (tmp_path / "strike-2").touch()
    (begun,) = awaited_outage(plan)
    begun.touch()
    assert awaited_outage(plan) == []
    assert fallen(plan) == STRIKES[1:]


def test_a_strike_really_kills_and_falls_only_once(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        from types import SimpleNamespace
        from baltoro.core.storage import Storage
        from baltoro.jobs.training.strikes import Strike, StrikeHook, StrikePlan

        plan = StrikePlan(sys.argv[1], (Strike("worker", 3),))
        hook = StrikeHook(plan, Storage(), rank=int(sys.argv[2]), world_size=2)
        for step in range(1, 6):
            hook.step_end(SimpleNamespace(step=step))
        """
    )

    def run(rank):
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), str(rank)], check=False
        ).returncode

    assert [run(0), run(1), run(1)] == [0, -9, 0]
