"""What a kernel held, made durable. The package knows no notebook and no user interface.

To read it in five minutes, follow a step's life, and open what stands in backquotes on the way:

1. **Before a cell runs** `Capture.look_before` (`capture`) looks at names which the cell can reach
   and which code that named nothing may have changed; else they would pass for the cell's doing.
2. **A cell has run**, and `Capture.checkpoint` is told which names its code uses. `looking` has
   `attention` follow them: through names that share objects, and through functions and classes
   (`reach` tells which names these can use; its docstring states the guarantee). Nothing else is
   looked at, except by an audit, which looks at everything now and then and at a run's end.
3. **What it looks at is pickled** (`pieces`, of `piece`, made by `dumping` with the `pickling` of
   one value): one stream a variable, large buffers beside it, functions and classes of the notebook
   as keys only (`definitions`). Arrays and frames are taken apart so that views share memory again
   (`reducing`, `arrays`, `frames`), a figure is pickled once for all its parts (`figures`). The
   pickler's memo tells which variables share objects (`sharing`); those are pickled once more,
   together, as one *component*.
4. **What changed** is told by digests (`digests`), compared with the `baseline`: what is remembered
   of each name, and of the groups that share objects.
5. **What changed is written** (`writing`) to content-addressed `objects` (`packing` compresses
   them), durable before anybody points to it. `inspection` loads a copy of each new kind of value;
   what does not come back is not stored: each name gets a verdict, `stored`, `rebuilt` or `lost`
   (`stored.Verdict`). `scanning` keeps secrets out. `ambient` takes what is beside the variables:
   directory, environment, modules, generators (`randomness`), settings of Python (`interpreter`)
   and options (`libraries`).
6. **The step commits** by one append to its run's `journal`, signed with a key outside the store
   (`keys`): the `Delta`, what the job changed. The fold of a run's deltas up to a job is the
   `Checkpoint`, the namespace as it stood right after it. `history` reads a journal, `chains` tells
   which jobs' deltas to fold.
7. **A restart** reads components back (`restore`, `loading`), definitions first, into a fresh
   namespace; large values can wait until code can reach them. `Capture.adopt` and `Capture.admit`
   make what was restored the baseline that the next step is compared with (`admission`;
   `fresh` tells which values need not be pickled for that).

Beside this life: `store` is the folder that holds it all, `ledger` what outlives runs, `inbox`
what runs wait for (`waits`) and the answers, `catalog`
the DuckDB index of the journals that queries read (filled by `ingest`; `rows`, `sql/`, `news`),
`doctor` checks and mends, `prune` frees. `equality` compares two namespaces as object graphs;
`testing` has what tests need. `errors` draws the error tree, and the rest are small tools:
`namespace`, `texts`, `locks`, `mounts`, `memory`, `drawings`, `crashpoints`.

Imports point down, in the order of the layers in `pyproject.toml`. All of them speak of the records
of `model`: what a journal holds, with what a job left in the namespace (`stored`) and elsewhere
(`effects`).
"""
