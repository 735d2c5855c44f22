"""What `baltoro layout` shows to people."""

from __future__ import annotations

from baltoro.jobs.layout import GIB, USABLE_FRACTION, Layout

_STATES = {
    "master_weights": "weights, float32 masters",
    "weights": "weights, working copy",
    "gradients": "gradients",
    "moments": "moments of the optimizer",
}
_ESTIMATES = {
    "gathered": "units gathered at a time",
    "activations": "activations",
    "loss": "logits and their gradient",
}


def describe_layout(layout: Layout) -> str:
    """Return the report for people."""
    batch = layout.batch
    lines = [
        f"{layout.recipe}: {layout.base}, {layout.parameters:,} parameters ({layout.architecture}, "
        f"{layout.blocks} blocks, {layout.vocabulary:,} rows of vocabulary; shape: {layout.shape_from})",
        f"{layout.strategy} on {layout.workers:,} workers: dp_replicate {layout.dp_replicate} × dp_shard "
        f"{layout.dp_shard}; "
        + (
            "set up by the strategy itself, on the meta device, in a process group of that size"
            if layout.proved
            else "by arithmetic: this strategy is not set up in a dry run"
        ),
        "",
        f"step      {batch.rows_per_step:,} rows of {batch.sequence_length:,} tokens = "
        f"{batch.global_batch_tokens:,} tokens; rows of a worker: {batch.rows_per_worker:,} = micro_batch "
        f"{batch.micro_batch} × accumulation {batch.accumulation}",
        _describe_run(layout),
        f"cost      {layout.flops_per_token:.3g} FLOPs a token, forward and backward{_describe_cost(layout)}",
        "",
        *_describe_memory(layout),
        "",
        *_describe_choices(layout),
        "",
        f"dry run   {layout.probe_seconds:.1f} s, {layout.probe_peak_memory_bytes / GIB:.2f} GiB of memory",
    ]
    return "\n".join(lines)


def _describe_run(layout: Layout) -> str:
    batch = layout.batch
    if batch.steps is None or batch.tokens is None:
        return (
            f"run       {batch.length_from}: as long as the corpus makes it; add pretrain.tokens=… to see "
            "the steps of a certain length"
        )
    return f"run       {batch.steps:,} steps, {batch.tokens:,} tokens ({batch.length_from})"


def _describe_cost(layout: Layout) -> str:
    if layout.run_flops is None:
        return ""
    run = f"; {layout.run_flops:.3g} for the run"
    if layout.run_seconds is None or layout.device_flops is None:
        return f"{run}; --device NAME tells how long that takes"
    hours = layout.run_seconds * layout.workers / 3600
    return (
        f"{run}: {layout.run_seconds / 86_400:,.1f} days at {layout.mfu_fraction:.0%} of "
        f"{layout.device_flops / 1e12:,.0f} TFLOP/s a device, {hours:,.0f} device-hours"
    )


def _describe_memory(layout: Layout) -> list[str]:
    ranks = list(layout.memory)
    heads = "".join(f"{f'rank {rank}':>16}" for rank in ranks)

    def row(label: str, name: str) -> str:
        values = [getattr(layout.memory[rank], name) / GIB for rank in ranks]
        return f"  {label:<28}" + "".join(f"{value:>12.2f} GiB" for value in values)

    shares = "".join(f"{layout.memory[rank].parameters:>16,}" for rank in ranks)
    lines = [f"{'memory of a worker':<30}{heads}", f"  {'parameters of its own':<28}{shares}"]
    lines += [row(label, name) for name, label in _STATES.items() if _any(layout, name)]
    lines += [row(f"{label} *", name) for name, label in _ESTIMATES.items() if _any(layout, name)]
    lines.append(row("on the device", "device"))
    if _any(layout, "host"):
        lines.append(row("in host memory", "host"))
    lines.append(
        "  * estimated: activations as autograd keeps them in a forward pass without values, attention as a "
        "fused kernel; each at its own peak, all at once"
    )
    mean = layout.parameters / layout.dp_shard
    if layout.largest_share > mean * 1.001:
        text = (
            f"  shares of a copy add up to the whole; they are uneven: {layout.smallest_share:,} to "
            f"{layout.largest_share:,} parameters, up to {layout.largest_share / mean - 1:.1%} above the mean"
        )
        if layout.empty_tensors:
            text += f"; {layout.empty_tensors} tensors have too few rows to give every worker one"
        lines.append(text)
    return lines


def _any(layout: Layout, name: str) -> bool:
    return any(getattr(memory, name) for memory in layout.memory.values())


def _describe_choices(layout: Layout) -> list[str]:
    lines = []
    for choice in layout.choices:
        kind = choice.activation_checkpointing
        text = f"  activation_checkpointing={kind:<10} {choice.device / GIB:>8.1f} GiB"
        if choice.largest_micro_batch:
            text += f"   fits up to micro_batch {choice.largest_micro_batch}"
        elif choice.largest_micro_batch == 0:
            text += "   does not fit"
        lines.append(text)
    if layout.device_memory_bytes is None:
        return ["fullest worker (--device-memory-gib tells what fits)", *lines]
    verdict = "fits" if layout.fits else "does not fit"
    head = (
        f"fullest worker: the recipe {verdict} into {layout.device_memory_bytes / GIB:.4g} GiB, of which "
        f"{USABLE_FRACTION:.0%} are counted on"
    )
    if not layout.fits and not any(choice.largest_micro_batch for choice in layout.choices):
        head += (
            "; shard over more workers (dp_shard, cluster.workers), keep states in host memory "
            "(parallel.fsdp2.cpu_offload), or shorten rows (data.sequence_length)"
        )
    return [head, *lines]
