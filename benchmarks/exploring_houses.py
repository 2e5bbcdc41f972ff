"""An exploratory notebook of 33 cells over a table of houses: looking, plotting, preparing.

It is written as people write them: one frame under a short name, looked at again and again, plots
without end, copies of the frame, a few helper functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROWS = 1460
_TEXT = {
    "MSZoning": "RL RM FV RH C", "Street": "Pave Grvl", "Alley": "Pave Grvl",
    "LotShape": "Reg IR1 IR2 IR3", "LandContour": "Lvl Bnk HLS Low", "Utilities": "AllPub NoSeWa",
    "LotConfig": "Inside Corner FR2 CulDSac", "LandSlope": "Gtl Mod Sev",
    "Neighborhood": "NAmes CollgCr OldTown Edwards Somerst Gilbert NridgHt Sawyer NWAmes SawyerW",
    "Condition1": "Norm Feedr Artery RRAn PosN", "Condition2": "Norm Feedr Artery",
    "BldgType": "1Fam TwnhsE Duplex Twnhs 2fmCon", "HouseStyle": "1Story 2Story 1.5Fin SLvl SFoyer",
    "RoofStyle": "Gable Hip Flat Gambrel", "RoofMatl": "CompShg Tar WdShake",
    "Exterior1st": "VinylSd HdBoard MetalSd Plywood CemntBd", "Exterior2nd": "VinylSd HdBoard",
    "MasVnrType": "BrkFace Stone BrkCmn", "ExterQual": "TA Gd Ex Fa", "ExterCond": "TA Gd Fa Ex",
    "Foundation": "PConc CBlock BrkTil Slab", "BsmtQual": "TA Gd Ex Fa", "BsmtCond": "TA Gd Fa",
    "BsmtExposure": "No Av Gd Mn", "BsmtFinType1": "Unf GLQ ALQ BLQ Rec LwQ",
    "BsmtFinType2": "Unf Rec LwQ BLQ", "Heating": "GasA GasW Grav", "HeatingQC": "Ex TA Gd Fa",
    "CentralAir": "Y N", "Electrical": "SBrkr FuseA FuseF", "KitchenQual": "TA Gd Ex Fa",
    "Functional": "Typ Min1 Min2 Mod", "FireplaceQu": "Gd TA Fa Ex Po",
    "GarageType": "Attchd Detchd BuiltIn CarPort", "GarageFinish": "Unf RFn Fin",
    "GarageQual": "TA Fa Gd", "GarageCond": "TA Fa Gd", "PavedDrive": "Y N P",
    "PoolQC": "Gd Ex Fa", "Fence": "MnPrv GdPrv GdWo", "MiscFeature": "Shed Gar2 Othr",
    "SaleType": "WD New COD", "SaleCondition": "Normal Partial Abnorml Family",
}  # fmt: skip
_MOSTLY_MISSING = ("Alley", "PoolQC", "Fence", "MiscFeature", "FireplaceQu", "MasVnrType")
_SOME_MISSING = ("BsmtQual", "BsmtCond", "BsmtExposure", "GarageType", "GarageFinish", "Electrical")
_NUMBERS = (
    "LotArea", "MasVnrArea", "BsmtFinSF1", "BsmtFinSF2", "BsmtUnfSF", "TotalBsmtSF", "1stFlrSF",
    "2ndFlrSF", "LowQualFinSF", "GrLivArea", "GarageArea", "WoodDeckSF", "OpenPorchSF",
    "EnclosedPorch", "3SsnPorch", "ScreenPorch", "PoolArea", "MiscVal", "LotFrontage",
)  # fmt: skip
_COUNTS = {
    "OverallQual": (1, 11), "OverallCond": (1, 10), "YearBuilt": (1890, 2010),
    "YearRemodAdd": (1950, 2011), "BsmtFullBath": (0, 3), "BsmtHalfBath": (0, 2),
    "FullBath": (0, 4), "HalfBath": (0, 3), "BedroomAbvGr": (0, 7), "KitchenAbvGr": (1, 3),
    "TotRmsAbvGrd": (3, 13), "Fireplaces": (0, 4), "GarageYrBlt": (1900, 2011),
    "GarageCars": (0, 5), "MoSold": (1, 13), "YrSold": (2006, 2011), "MSSubClass": (20, 190),
}  # fmt: skip


def write_data(folder: Path) -> None:
    """Write `houses.csv`: 1460 houses in 81 columns, the same every time."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {"Id": np.arange(1, ROWS + 1)}
    for name, (low, high) in _COUNTS.items():
        columns[name] = rng.integers(low, high, ROWS)
    quality = columns["OverallQual"]
    for place, name in enumerate(_NUMBERS):
        columns[name] = np.round(rng.gamma(2 + place % 3, 250, ROWS) * (0.5 + quality / 10))
    for name, words in _TEXT.items():
        choices = words.split()
        weights = 1 / np.arange(1, len(choices) + 1) ** 1.5
        columns[name] = rng.choice(choices, ROWS, p=weights / weights.sum())
    frame = pd.DataFrame(columns)
    for names, share in ((_MOSTLY_MISSING, 0.8), (_SOME_MISSING, 0.05), (["LotFrontage"], 0.18)):
        for name in names:
            frame.loc[rng.random(ROWS) < share, name] = None
    price = 30000 + 17000 * quality + 45 * frame["GrLivArea"] + 9000 * frame["GarageCars"]
    frame["SalePrice"] = (price * rng.lognormal(0, 0.15, ROWS)).round(-2).astype(int)
    frame.to_csv(folder / "houses.csv", index=False)


CELLS = (
    """
import warnings
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
import seaborn as sns
from scipy import stats

warnings.filterwarnings("ignore")
%matplotlib inline
sns.set_style("whitegrid")
""",
    "df_train = pd.read_csv('houses.csv')\ndf_train.shape",
    "df_train.head()",
    "df_train.info()",
    "df_train.columns",
    "df_train['SalePrice'].describe()",
    "sns.histplot(df_train['SalePrice'], kde=True);",
    """
print("Skewness: %f" % df_train["SalePrice"].skew())
print("Kurtosis: %f" % df_train["SalePrice"].kurt())
""",
    """
var = "GrLivArea"
data = pd.concat([df_train["SalePrice"], df_train[var]], axis=1)
data.plot.scatter(x=var, y="SalePrice", ylim=(0, 800000));
""",
    """
var = "TotalBsmtSF"
data = pd.concat([df_train["SalePrice"], df_train[var]], axis=1)
data.plot.scatter(x=var, y="SalePrice", ylim=(0, 800000));
""",
    """
var = "OverallQual"
data = pd.concat([df_train["SalePrice"], df_train[var]], axis=1)
f, ax = plt.subplots(figsize=(8, 6))
fig = sns.boxplot(x=var, y="SalePrice", data=data)
fig.axis(ymin=0, ymax=800000);
""",
    """
var = "YearBuilt"
data = pd.concat([df_train["SalePrice"], df_train[var]], axis=1)
f, ax = plt.subplots(figsize=(16, 8))
fig = sns.boxplot(x=var, y="SalePrice", data=data)
fig.axis(ymin=0, ymax=800000)
plt.xticks(rotation=90);
""",
    """
corrmat = df_train.corr(numeric_only=True)
f, ax = plt.subplots(figsize=(12, 9))
sns.heatmap(corrmat, vmax=.8, square=True);
""",
    """
k = 10
cols = corrmat.nlargest(k, "SalePrice")["SalePrice"].index
cm = np.corrcoef(df_train[cols].fillna(0).values.T)
sns.set_theme(font_scale=1.25)
hm = sns.heatmap(cm, cbar=True, annot=True, square=True, fmt=".2f", annot_kws={"size": 10},
                 yticklabels=cols.values, xticklabels=cols.values)
plt.show()
""",
    """
sns.set_theme()
cols = ["SalePrice", "OverallQual", "GrLivArea", "GarageCars", "TotalBsmtSF", "FullBath",
        "YearBuilt"]
sns.pairplot(df_train[cols], height=2.5)
plt.show();
""",
    """
total = df_train.isnull().sum().sort_values(ascending=False)
percent = (df_train.isnull().sum() / df_train.isnull().count()).sort_values(ascending=False)
missing_data = pd.concat([total, percent], axis=1, keys=["Total", "Percent"])
missing_data.head(20)
""",
    """
df_train = df_train.drop(columns=missing_data[missing_data["Percent"] > 0.15].index)
df_train = df_train.drop(df_train.loc[df_train["Electrical"].isnull()].index)
df_train.isnull().sum().max()
""",
    """
categorical = df_train.select_dtypes(exclude="number").columns
numeric = df_train.select_dtypes(include="number").columns
for column in categorical:
    df_train[column] = df_train[column].fillna("None")
df_train[numeric] = df_train[numeric].fillna(df_train[numeric].median())
""",
    """
by_hood = df_train.groupby("Neighborhood")["SalePrice"].agg(["mean", "median", "std", "count"])
by_hood.sort_values("median", ascending=False)
""",
    """
order = by_hood.sort_values("median").index
plt.figure(figsize=(12, 6))
sns.boxplot(x="Neighborhood", y="SalePrice", data=df_train, order=order)
plt.xticks(rotation=45);
""",
    """
df_train[numeric].hist(bins=30, figsize=(18, 16))
plt.tight_layout()
""",
    """
fig, axes = plt.subplots(4, 4, figsize=(18, 14))
for ax, column in zip(axes.flat, categorical[:16]):
    sns.countplot(x=column, data=df_train, ax=ax)
    ax.tick_params(axis="x", rotation=45)
fig.tight_layout()
""",
    """
pivot = df_train.pivot_table(index="OverallQual", columns="YrSold", values="SalePrice",
                             aggfunc="median")
plt.figure(figsize=(10, 6))
sns.heatmap(pivot, annot=True, fmt=".0f", cmap="viridis");
""",
    """
def standardised(values):
    return (values - values.mean()) / values.std()

saleprice_scaled = standardised(df_train["SalePrice"])
low_range = saleprice_scaled.sort_values().head(10)
high_range = saleprice_scaled.sort_values().tail(10)
print("outer range (low) of the distribution:", low_range, sep="\\n")
print("outer range (high) of the distribution:", high_range, sep="\\n")
""",
    """
outliers = df_train.sort_values(by="GrLivArea", ascending=False)[:2]
df_train = df_train.drop(outliers.index)
df_train.plot.scatter(x="GrLivArea", y="SalePrice");
""",
    """
sns.histplot(df_train["SalePrice"], kde=True, stat="density")
fig = plt.figure()
res = stats.probplot(df_train["SalePrice"], plot=plt)
""",
    """
df_train["SalePrice"] = np.log(df_train["SalePrice"])
sns.histplot(df_train["SalePrice"], kde=True, stat="density")
fig = plt.figure()
res = stats.probplot(df_train["SalePrice"], plot=plt)
""",
    """
df_train["HasBsmt"] = 0
df_train.loc[df_train["TotalBsmtSF"] > 100, "HasBsmt"] = 1
df_train["Age"] = df_train["YrSold"] - df_train["YearBuilt"]
df_train["TotalSF"] = df_train["TotalBsmtSF"] + df_train["1stFlrSF"] + df_train["2ndFlrSF"]
df_train[["HasBsmt", "Age", "TotalSF"]].describe()
""",
    """
g = sns.FacetGrid(df_train, col="YrSold", height=3)
g.map(plt.hist, "TotalSF", bins=20)
axes_of_facets = g.axes
""",
    """
sns.lmplot(x="TotalSF", y="SalePrice", hue="CentralAir", data=df_train, height=5, seed=0)
plt.show()
""",
    """
quality = {"None": 0, "Po": 1, "Fa": 2, "TA": 3, "Gd": 4, "Ex": 5}
for column in ["ExterQual", "ExterCond", "BsmtQual", "BsmtCond", "HeatingQC", "KitchenQual"]:
    df_train[column + "Num"] = df_train[column].map(quality).astype(int)
strongest = df_train.corr(numeric_only=True)["SalePrice"].abs().sort_values(ascending=False)
strongest.head(15)
""",
    "df_train = pd.get_dummies(df_train)\ndf_train.shape",
    """
skewed = df_train.select_dtypes("number").apply(stats.skew).sort_values(ascending=False)
for column in skewed[skewed > 1].index:
    df_train[column] = np.log1p(df_train[column].clip(lower=0))
df_train.to_csv("prepared.csv", index=False)
df_train.head()
""",
)
