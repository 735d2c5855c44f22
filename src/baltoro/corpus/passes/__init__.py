"""The work of a corpus build, task by task, as plain functions over files.

1. ``records`` (:mod:`.read`): read, clean, render, decontaminate, filter each chunk of objects; stage its
   documents, its records (who was read, what became of it) and the keys by which copies meet, by partition.
2. ``edges``, ``decisions`` (:mod:`.copies`): per partition the verified pairs of copies; then, in one task,
   clusters, and who gives way to whom. A corpus that extends another one first picks out what of that one's
   signatures can meet a new document.
3. ``kept``, ``repeats`` (:mod:`.spans`): only where the recipe cuts passages that several documents share.
4. ``written`` (:mod:`.write`): per chunk the final part, with splits and figures.
5. ``tables`` (:mod:`.tables`): one task joins what all chunks say.

A task reads what earlier passes wrote and ends by writing one file of its own pass, so a killed build goes on
where it stopped (:mod:`baltoro.corpus.work`). No task holds more than its chunk or its partition; the single
tasks hold what is proportional to the number of copies, never texts.
"""
