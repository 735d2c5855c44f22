"""What the build of an instruction set tells: the steps of each part, what was left out, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baltoro.instructions.signals.quality import CAP_REASONS

_MOST_REASONS = 6
_TOLD_NAMES = 3
MOST_CONTENT_LOST = 0.1
"""Part of the review examples that may have nothing of their papers' content left without a warning."""


def warnings_of(
    by_part: Mapping[str, int],
    counts: Mapping[str, Mapping[str, Any]],
    rejected: Mapping[str, Mapping[str, int]],
    *,
    few_paraphrases: Mapping[str, int],
) -> list[str]:
    """Return what of a set somebody should look at before training on it, a sentence each.

    Args:
        by_part: examples of each part.
        counts: of the steps, by part, and of ``decisions``.
        rejected: by part, reason → candidates.
        few_paraphrases: task → paraphrases, of tasks with fewer than usual.
    """
    told = []
    for part, examples in by_part.items():
        if not examples:
            told.append(
                f"the part {part} of the recipe has no example: "
                f"{_reasons(rejected[part]) or 'nothing to make it of'}"
            )
    reviews = counts.get("reviews", {})
    lost, made = reviews.get("content_lost", 0), reviews.get("examples", 0)
    if lost > MOST_CONTENT_LOST * made:
        told.append(
            f"{lost:,} of {made:,} review examples have nothing of their paper's content left; raise "
            "instructions.reviews.cutoff_tokens, or lower response_room_tokens"
        )
    decisions = counts.get("decisions")
    if decisions:
        for name, meaning in (
            ("absent", "name no example of this set"),
            ("stale", "are on another state of their example than this build's, and were not applied"),
        ):
            if decisions[name]:
                told.append(f"{decisions[name]:,} decisions {meaning}: {_names(decisions[f'{name}_names'])}")
    told += [
        f"instructions.signals.templates: {task} has {number} phrasing{'s' if number > 1 else ''}; with "
        "fewer than five a model learns the words rather than the task"
        for task, number in few_paraphrases.items()
    ]
    return told


def instruction_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return what is told of a set, from its stage's summary."""
    tasks = ", ".join(f"{count:,} {task}" for task, count in summary["by_task"].items())
    splits = ", ".join(f"{count:,} for {split}" for split, count in summary["splits"].items())
    lines = [f"{summary['examples']:,} examples ({splits}): {tasks}"]
    for part, counts in summary["steps"].items():
        if part in _STEPS:
            lines.append(f"{part}: {summary['by_part'][part]:,} examples")
            lines += [f"  {line}" for line in _STEPS[part](counts)]
            noise = {
                reason: count
                for reason, count in summary["rejected_by_part"][part].items()
                if reason not in CAP_REASONS
            }
            if noise:
                lines.append(f"  left out: {_reasons(noise)}")
    if "decisions" in summary["steps"]:
        lines += _decisions(summary["steps"]["decisions"])
    lines += [f"WARNING: {warning}" for warning in summary["warnings"]]
    lines += [f"{name}: {uri}" for name, uri in summary["files"].items()]
    return [*lines, str(summary["artifact"])]


def next_steps(*, finetunes: bool, decided: bool) -> list[str]:
    """Return the commands that follow on a built set.

    Args:
        finetunes: the recipe has a stage that trains on it.
        decided: people's decisions have been applied.
    """
    sheet = "another sample for people" if decided else "a sample for people to keep, drop and edit"
    return [
        f"baltoro instructions review-sheet RECIPE   {sheet}",
        *(["baltoro finetune RECIPE                    train on it"] if finetunes else []),
    ]


def _signals(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    total = {
        name: sum(counted[name] for counted in counts.values())
        for name in ("candidates", "kept", "rejected", "over_cap")
    }
    lines = [
        f"{total['candidates']:,} candidates = {total['kept']:,} kept + {total['rejected']:,} rejected + "
        f"{total['over_cap']:,} over the tasks' weights and caps"
    ]
    judgements = sum(counted["kept"] for task, counted in counts.items() if task.endswith("_judgement"))
    if judgements:
        lines.append(
            f"{judgements:,} of them ({judgements / total['kept']:.0%}) ask for yes or no; weight and cap of "
            "hypernym_judgement and hyponym_judgement under instructions.signals.tasks change that"
        )
    return lines


def _reviews(counts: Mapping[str, Any]) -> list[str]:
    keys = {
        name.removeprefix("joined_"): count
        for name, count in counts.items()
        if name.startswith("joined_") and count
    }
    dropped = _reasons(
        {
            name: count
            for name, count in counts.items()
            if name.startswith("review_") and name != "review_records_rejected" and count
        }
    )
    apart = _reasons(
        {
            name.removeprefix("not_counted_"): count
            for name, count in counts.items()
            if name.startswith("not_counted_") and count
        }
    )
    joined = ", ".join(f"{count:,} by {key.replace('_', ' ')}" for key, count in keys.items())
    cut = ", ".join(
        f"{counts[f'cut_{part}']:,} in their {part}"
        for part in ("abstract", "captions", "content")
        if counts[f"cut_{part}"]
    )
    return [
        f"{counts['papers_read']:,} papers read, {counts['papers_unreadable']:,} of them unreadable; "
        f"{counts['joined']:,} joined with reviews" + (f" ({joined})" if joined else ""),
        f"{counts['reviews_of_joined_papers']:,} reviews of these, {counts['reviews_kept']:,} kept"
        + (f" ({dropped})" if dropped else ""),
        *([f"not counted as reviews: {apart}"] if apart else []),
        f"{counts['merged']:,} papers' reviews merged, {counts['before_long_tail']:,} examples before the "
        f"bounds of long_tail, {counts['examples']:,} after",
        *([f"papers cut to fit: {cut}"] if cut else []),
    ]


def _files(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"{name}: {counted['examples']:,} examples, {counted['rejected']:,} rejected"
        for name, counted in counts.items()
    ]


_STEPS = {"signals": _signals, "reviews": _reviews, "files": _files}


def _decisions(counts: Mapping[str, Any]) -> list[str]:
    applied = counts["applied"]
    lines = [
        f"decisions: {counts['kept']:,} kept, {counts['dropped']:,} dropped, {counts['edited']:,} edited; "
        f"{counts['absent']:,} name no example of this set, {counts['stale']:,} are on another state of "
        f"theirs"
    ]
    if counts["noise"]:
        lines.append(f"noise (dropped or edited) among the {applied:,} decisions that were applied:")
        lines += [
            f"  {task}: {rate['noise']:,} of {rate['looked_at']:,} = {rate['fraction']:.0%} "
            f"(between {rate['low']:.0%} and {rate['high']:.0%}, 95 %)"
            for task, rate in counts["noise"].items()
        ]
    return lines


def _reasons(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[_MOST_REASONS:])
    named = [f"{count:,} {reason}" for reason, count in ranked[:_MOST_REASONS]]
    return ", ".join([*named, *([f"{rest:,} for other reasons"] if rest else [])])


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_TOLD_NAMES])
    return f"{shown}, …" if len(names) > _TOLD_NAMES else shown
