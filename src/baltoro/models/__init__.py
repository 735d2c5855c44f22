"""Single-device model code: presets, bases, vocabulary changes, packed attention, export.

Nothing here knows about other processes. The way of a model into training:

1. :func:`~baltoro.models.import_base.import_base_model` turns a folder, GGUF file or hub id into a folder of
   plain safetensors with canonical names (once, before any worker starts);
2. :func:`~baltoro.models.load.plan_model` decides, from a preset or such a folder and the tokenizer, what the
   model is (a small picklable value, the same on every rank);
3. :func:`~baltoro.models.load.build_model` builds it on the meta device; the strategy shards it;
4. :func:`~baltoro.models.load.load_weights` fills each parameter, seeded or from the folder;
5. :func:`~baltoro.models.export.write_hf_folder` writes the trained weights for everyone else.
"""
