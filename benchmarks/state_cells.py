"""A namespace of about 1 GB, and twenty small edits to it, as cells."""

from __future__ import annotations

SETUP = """
import dataclasses
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

rng = np.random.default_rng(0)
N = 5_000_000

@dataclasses.dataclass
class Trade:
    number: int
    price: float
    tags: list

def mean_of(values):
    return float(np.mean(values))
"""
MAKE = """
words = np.array(["alpha", "beta", "gamma", "delta", "a longer word than these"])
df = pd.DataFrame({
    "f0": rng.random(N), "f1": rng.random(N), "f2": rng.random(N), "f3": rng.random(N),
    "i0": rng.integers(0, 1000, N), "i1": rng.integers(0, 10, N),
    "s0": pd.array(words[rng.integers(0, 5, N)], dtype="str"),
    "s1": pd.array(words[rng.integers(0, 5, N)], dtype="str"),
    "day": np.datetime64("2013-01-01") + rng.integers(0, 365, N).astype("m8[D]"),
    "kind": pd.Categorical.from_codes(rng.integers(0, 3, N), ["x", "y", "z"]),
})
grid = rng.random((5000, 5000))
rows = [(i, "row %d" % i, i / 7) for i in range(1_000_000)]
trades = [Trade(i, i / 3, [i]) for i in range(100_000)]
forest = RandomForestRegressor(30, max_depth=9, random_state=0, n_jobs=1)
model = forest.fit(grid[:2000, :5], grid[:2000, 7])
common = [1, 2, 3]
left, right = {"common": common}, {"common": common}
window = grid[100:200]
lookup = {"step": 0}
"""
EDITS = (
    "lookup['step'] += 1",
    "df['f4'] = df['f0'] * 2",
    "grid[1000:1010] = 0",
    "small = df['f1'].head(1000).sum()",
    "rows.append((-1, 'last', 0.5))",
    "trades[5].price = 9.5",
    "common.append(4)",
    "left['common'][0] = 7",
    "df.loc[5, 'i0'] = 77",
    "by_kind = df.groupby('kind', observed=True)['f0'].mean()",
    "count = len(rows)",
    "level = mean_of(grid[:10])",
    "top = df.nlargest(10, 'f2')",
    "window[3, 3] = 5",
    "score = model.predict(grid[:50, :5])",
    "del small",
    "part = grid[:100].copy()",
    "draw = rng.random(5)",
    "trades.append(Trade(-1, 0.0, []))",
    "note = 'done'\nshape = df.shape",
)
#: what must hold after all of it, in the namespace and in a restored one
CHECK = """
assert df.shape == (N, 11) and df.loc[5, "i0"] == 77 and grid[1005].sum() == 0
assert len(rows) == 1_000_001 and rows[-1] == (-1, "last", 0.5) and trades[5].price == 9.5
assert left["common"] is right["common"] is common and common == [7, 2, 3, 4]
assert np.shares_memory(window, grid) and grid[103, 3] == 5 and window[3, 3] == 5
assert type(trades[0]) is Trade and len(trades) == 100_001 and lookup == {"step": 1}
assert mean_of([1, 3]) == 2 and "small" not in globals() and note == "done"
assert model.predict(grid[:50, :5]).tolist() == score.tolist()
"""
