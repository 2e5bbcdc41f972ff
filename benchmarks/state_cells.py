"""A namespace of about 1 GB, twenty small edits to it as cells, and what must hold afterwards."""

from __future__ import annotations

SETUP = """
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

rng = np.random.default_rng(0)
N, G, R, T = {sizes}
"""
DEFINITIONS = """
import dataclasses
import numpy as np

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
grid = rng.random((G, G))
rows = [(i, "row %d" % i, i / 7) for i in range(R)]
trades = [Trade(i, i / 3, [i]) for i in range(T)]
forest = RandomForestRegressor(30, max_depth=9, random_state=0, n_jobs=1)
model = forest.fit(grid[:2000, :5], grid[:2000, 7])
common = [1, 2, 3]
left, right = {"common": common}, {"common": common}
window = grid[100:200]
lookup = {"step": 0}
"""
#: a cell, and what of the namespace it changed ("" for nothing): the limit writes just that
_CELLS = (
    ("lookup['step'] += 1", "lookup"),
    ("df['f4'] = df['f0'] * 2", "df['f4'].to_numpy()"),
    ("grid[1000:1010] = 0", "grid[1000:1010]"),
    ("small = df['f1'].head(1000).sum()", "small"),
    ("rows.append((-1, 'last', 0.5))", "rows[-1]"),
    ("trades[5].price = 9.5", "trades[5].price"),
    ("common.append(4)", "common"),
    ("left['common'][0] = 7", "common"),
    ("df.loc[5, 'i0'] = 77", "int(df.loc[5, 'i0'])"),
    ("by_kind = df.groupby('kind', observed=True)['f0'].mean()", "by_kind"),
    ("count = len(rows)", "count"),
    ("level = mean_of(grid[:10])", "level"),
    ("top = df.nlargest(10, 'f2')", "top"),
    ("window[3, 3] = 5", "grid[103, 3]"),
    ("score = model.predict(grid[:50, :5])", "score"),
    ("del small", ""),
    ("part = grid[:100].copy()", "part"),
    ("draw = rng.random(5)", "(draw, rng.bit_generator.state)"),
    ("trades.append(Trade(-1, 0.0, []))", "(-1, 0.0, [])"),
    ("note = 'done'\nshape = df.shape", "(note, shape)"),
)
EDITS = tuple(source for source, _ in _CELLS)
CHANGED = tuple(changed for _, changed in _CELLS)
#: the namespace is restored as it was after these edits
CUTS = (5, 10, 20)
#: needs one small value of all that was stored
SMALL = "lookup['step'] += 1"
#: the module that holds the definitions, where the cell does not
MODULE = "bench_definitions"
#: what must hold of a restored namespace beside the values themselves
FACTS = {
    "left, right and common share one list": "left['common'] is right['common'] is common",
    "window is a view of grid": "np.shares_memory(window, grid)",
    "forest is model": "forest is model",
    "trades are of the class Trade": "type(trades[0]) is Trade",
    "mean_of can be called": "mean_of([1, 3]) == 2",
}


def setup(scale: float, *, importable: bool = False) -> str:
    """The first cell, for a namespace of so many times 1 GB.

    Args:
        scale: so many times 1 GB.
        importable: class and function come from a module, not from the cell.
    """
    side = max(1100, int(5000 * scale**0.5))
    sizes = int(5_000_000 * scale), side, int(1_000_000 * scale), max(100, int(100_000 * scale))
    made = f"from {MODULE} import Trade, mean_of" if importable else DEFINITIONS
    return SETUP.replace("{sizes}", ", ".join(map(str, sizes))) + made
