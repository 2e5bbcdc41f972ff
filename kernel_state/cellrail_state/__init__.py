"""What a kernel held, made durable. The package knows no notebook and no user interface.

How it works, in the order of a step's life:

1. **A cell has run.** `capture` is told which names its code uses. `attention` follows them:
   through names that share objects, and through functions and classes (`reach` tells which names
   these can use; its docstring states the guarantee). Nothing else is looked at, except by an
   audit, which looks at everything now and then and at the end of a run.
2. **What it looks at is pickled** (`pieces`, `pickling`): one stream a variable, large buffers
   beside it, functions and classes of the notebook as keys only (`definitions`). Arrays and frames
   are taken apart so that views share memory again (`arrays`). A digest of the stream tells whether
   the variable changed, the pickler's memo which variables share objects (`sharing`); those are
   pickled once more, together, as one *component*.
3. **What changed is written** to content-addressed `objects`, durable before anybody points to it.
   `inspection` loads a copy of each new kind of value; what does not come back is not stored: each
   name gets a verdict, `stored`, `rebuilt` or `lost` (`model.Verdict`). `scanning` keeps secrets
   out, `ambient` takes what is beside the variables: generators, directory, options.
4. **The step commits** by one append to its run's `journal`, signed with a key outside the store
   (`keys`): the `Delta`, what the job changed. The fold of a run's deltas up to a job is the
   `Checkpoint`, the namespace as it stood right after it (`history`).
5. **A restart** reads components back (`restore`, `loading`), definitions first, into a fresh
   namespace; large values can wait until code can reach them. `Capture.adopt` and `Capture.admit`
   make what was restored the state that the next step is compared with.

`store` is the folder that holds it all, `catalog` the DuckDB index of the journals that queries
read (`rows`, `sql/`), `doctor` checks and mends, `prune` frees. `equality` compares two namespaces
as object graphs; `testing` has what tests need.
"""
