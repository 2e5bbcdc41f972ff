"""A notebook of 83 cells on housing prices: data, pipelines, several models, searches, results.

The shape is that of a chapter's project notebook: prepare step by step, then with a pipeline, fit
models one after another, search, look at the best one, store it with joblib and read it again.
"""

from __future__ import annotations

from pathlib import Path

import exploring_models

ROWS = 12_000


def write_data(folder: Path) -> None:
    """Write `housing.csv`: districts with a price, the same every time."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(42)
    longitude, latitude = rng.uniform(-124.3, -114.3, ROWS), rng.uniform(32.5, 42.0, ROWS)
    rooms = rng.lognormal(7.5, 0.7, ROWS).round()
    households = (rooms / rng.uniform(3, 8, ROWS)).round() + 1
    income = rng.gamma(4, 1, ROWS).clip(0.5, 15).round(4)
    coast = np.abs(longitude + 124.3 - (42 - latitude) * 0.9)
    price = 45000 * income + 60000 * np.exp(-coast / 3) + rng.normal(0, 25000, ROWS)
    near = np.select([coast < 1, coast < 3, coast < 4], ["NEAR OCEAN", "<1H OCEAN", "NEAR BAY"],
                     "INLAND")  # fmt: skip
    frame = pd.DataFrame({
        "longitude": longitude.round(2), "latitude": latitude.round(2),
        "housing_median_age": rng.integers(1, 53, ROWS).astype(float), "total_rooms": rooms,
        "total_bedrooms": (rooms / rng.uniform(4, 6, ROWS)).round(),
        "population": (households * rng.uniform(1.5, 4, ROWS)).round(), "households": households,
        "median_income": income, "median_house_value": price.clip(15000, 500001).round(),
        "ocean_proximity": near,
    })  # fmt: skip
    frame.loc[rng.random(ROWS) < 0.01, "total_bedrooms"] = None
    frame.to_csv(folder / "housing.csv", index=False)


_LOOK = (
    """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
assert sys.version_info >= (3, 7)
""",
    """
plt.rc("font", size=14)
plt.rc("axes", labelsize=14, titlesize=14)
plt.rc("legend", fontsize=14)
IMAGES_PATH = Path("images")
IMAGES_PATH.mkdir(exist_ok=True)

def save_fig(fig_id, tight_layout=True, fig_extension="png", resolution=100):
    path = IMAGES_PATH / f"{fig_id}.{fig_extension}"
    if tight_layout:
        plt.tight_layout()
    plt.savefig(path, format=fig_extension, dpi=resolution)
""",
    """
def load_housing_data():
    return pd.read_csv(Path("housing.csv"))

housing = load_housing_data()
""",
    "housing.head()",
    "housing.info()",
    'housing["ocean_proximity"].value_counts()',
    "housing.describe()",
    "housing.hist(bins=50, figsize=(12, 8))\nsave_fig('attribute_histogram_plots')\nplt.show()",
    """
def shuffle_and_split_data(data, test_ratio):
    shuffled_indices = np.random.permutation(len(data))
    test_set_size = int(len(data) * test_ratio)
    return data.iloc[shuffled_indices[test_set_size:]], data.iloc[shuffled_indices[:test_set_size]]
""",
    "np.random.seed(42)",
    "train_set, test_set = shuffle_and_split_data(housing, 0.2)\nlen(train_set)",
    """
from zlib import crc32

def is_id_in_test_set(identifier, test_ratio):
    return crc32(np.int64(identifier)) < test_ratio * 2**32

def split_data_with_id_hash(data, test_ratio, id_column):
    in_test_set = data[id_column].apply(lambda id_: is_id_in_test_set(id_, test_ratio))
    return data.loc[~in_test_set], data.loc[in_test_set]
""",
    """
housing_with_id = housing.reset_index()
train_set, test_set = split_data_with_id_hash(housing_with_id, 0.2, "index")
""",
    """
from sklearn.model_selection import train_test_split

train_set, test_set = train_test_split(housing, test_size=0.2, random_state=42)
test_set["total_bedrooms"].isnull().sum()
""",
    """
housing["income_cat"] = pd.cut(housing["median_income"], bins=[0., 1.5, 3.0, 4.5, 6., np.inf],
                               labels=[1, 2, 3, 4, 5])
housing["income_cat"].value_counts().sort_index().plot.bar(rot=0, grid=True)
save_fig("housing_income_cat_bar_plot")
plt.show()
""",
    """
from sklearn.model_selection import StratifiedShuffleSplit

splitter = StratifiedShuffleSplit(n_splits=10, test_size=0.2, random_state=42)
strat_splits = []
for train_index, test_index in splitter.split(housing, housing["income_cat"]):
    strat_splits.append([housing.iloc[train_index], housing.iloc[test_index]])
""",
    "strat_train_set, strat_test_set = strat_splits[0]",
    """
strat_train_set, strat_test_set = train_test_split(
    housing, test_size=0.2, stratify=housing["income_cat"], random_state=42)
strat_test_set["income_cat"].value_counts() / len(strat_test_set)
""",
    """
def income_cat_proportions(data):
    return data["income_cat"].value_counts() / len(data)

train_set, test_set = train_test_split(housing, test_size=0.2, random_state=42)
compare_props = pd.DataFrame({
    "Overall %": income_cat_proportions(housing),
    "Stratified %": income_cat_proportions(strat_test_set),
    "Random %": income_cat_proportions(test_set),
}).sort_index()
(compare_props * 100).round(2)
""",
    """
for set_ in (strat_train_set, strat_test_set):
    set_.drop("income_cat", axis=1, inplace=True)
""",
    "housing = strat_train_set.copy()",
    """
housing.plot(kind="scatter", x="longitude", y="latitude", grid=True, alpha=0.2)
save_fig("better_visualization_plot")
plt.show()
""",
    """
housing.plot(kind="scatter", x="longitude", y="latitude", grid=True,
             s=housing["population"] / 100, label="population",
             c="median_house_value", cmap="jet", colorbar=True, legend=True, figsize=(10, 7))
save_fig("housing_prices_scatterplot")
plt.show()
""",
    "corr_matrix = housing.corr(numeric_only=True)",
    'corr_matrix["median_house_value"].sort_values(ascending=False)',
    """
from pandas.plotting import scatter_matrix

attributes = ["median_house_value", "median_income", "total_rooms", "housing_median_age"]
scatter_matrix(housing[attributes], figsize=(12, 8))
save_fig("scatter_matrix_plot")
plt.show()
""",
    """
housing.plot(kind="scatter", x="median_income", y="median_house_value", alpha=0.1, grid=True)
plt.show()
""",
    """
housing["rooms_per_house"] = housing["total_rooms"] / housing["households"]
housing["bedrooms_ratio"] = housing["total_bedrooms"] / housing["total_rooms"]
housing["people_per_house"] = housing["population"] / housing["households"]
""",
    """
corr_matrix = housing.corr(numeric_only=True)
corr_matrix["median_house_value"].sort_values(ascending=False)
""",
)
_PREPARE = (
    """
housing = strat_train_set.drop("median_house_value", axis=1)
housing_labels = strat_train_set["median_house_value"].copy()
""",
    "null_rows_idx = housing.isnull().any(axis=1)\nhousing.loc[null_rows_idx].head()",
    """
housing_option1 = housing.copy()
housing_option1.dropna(subset=["total_bedrooms"], inplace=True)
housing_option1.loc[housing_option1.index[:5]]
""",
    """
housing_option3 = housing.copy()
median = housing["total_bedrooms"].median()
housing_option3["total_bedrooms"] = housing_option3["total_bedrooms"].fillna(median)
housing_option3.loc[null_rows_idx].head()
""",
    'from sklearn.impute import SimpleImputer\n\nimputer = SimpleImputer(strategy="median")',
    "housing_num = housing.select_dtypes(include=[np.number])",
    "imputer.fit(housing_num)",
    "imputer.statistics_",
    "X = imputer.transform(housing_num)",
    """
housing_tr = pd.DataFrame(X, columns=housing_num.columns, index=housing_num.index)
housing_tr
""",
    """
from sklearn.ensemble import IsolationForest

isolation_forest = IsolationForest(random_state=42)
outlier_pred = isolation_forest.fit_predict(X)
outlier_pred
""",
    'housing_cat = housing[["ocean_proximity"]]\nhousing_cat.head(8)',
    """
from sklearn.preprocessing import OrdinalEncoder

ordinal_encoder = OrdinalEncoder()
housing_cat_encoded = ordinal_encoder.fit_transform(housing_cat)
housing_cat_encoded[:8]
""",
    "ordinal_encoder.categories_",
    """
from sklearn.preprocessing import OneHotEncoder

cat_encoder = OneHotEncoder()
housing_cat_1hot = cat_encoder.fit_transform(housing_cat)
housing_cat_1hot
""",
    "housing_cat_1hot.toarray()",
    'df_test = pd.DataFrame({"ocean_proximity": ["INLAND", "NEAR BAY"]})\npd.get_dummies(df_test)',
    "cat_encoder.transform(df_test)",
    'cat_encoder.handle_unknown = "ignore"\ncat_encoder.get_feature_names_out()',
    """
from sklearn.preprocessing import MinMaxScaler, StandardScaler

min_max_scaler = MinMaxScaler(feature_range=(-1, 1))
housing_num_min_max_scaled = min_max_scaler.fit_transform(housing_num)
std_scaler = StandardScaler()
housing_num_std_scaled = std_scaler.fit_transform(housing_num)
""",
    """
fig, axs = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
housing["population"].hist(ax=axs[0], bins=50)
housing["population"].apply(np.log).hist(ax=axs[1], bins=50)
save_fig("long_tail_plot")
plt.show()
""",
    """
from sklearn.metrics.pairwise import rbf_kernel

age_simil_35 = rbf_kernel(housing[["housing_median_age"]], [[35]], gamma=0.1)
age_simil_35[:5]
""",
    """
from sklearn.linear_model import LinearRegression

target_scaler = StandardScaler()
scaled_labels = target_scaler.fit_transform(housing_labels.to_frame())
model = LinearRegression()
model.fit(housing[["median_income"]], scaled_labels)
some_new_data = housing[["median_income"]].iloc[:5]
predictions = target_scaler.inverse_transform(model.predict(some_new_data))
predictions
""",
    """
from sklearn.compose import TransformedTargetRegressor

model = TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler())
model.fit(housing[["median_income"]], housing_labels)
model.predict(some_new_data)
""",
    """
from sklearn.preprocessing import FunctionTransformer

log_transformer = FunctionTransformer(np.log, inverse_func=np.exp)
log_pop = log_transformer.transform(housing[["population"]])
""",
    """
rbf_transformer = FunctionTransformer(rbf_kernel, kw_args=dict(Y=[[35.]], gamma=0.1))
age_simil_35 = rbf_transformer.transform(housing[["housing_median_age"]])
age_simil_35
""",
    """
ratio_transformer = FunctionTransformer(lambda X: X[:, [0]] / X[:, [1]])
ratio_transformer.transform(np.array([[1., 2.], [3., 4.]]))
""",
    """
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans

class ClusterSimilarity(TransformerMixin, BaseEstimator):
    def __init__(self, n_clusters=10, gamma=1.0, random_state=None):
        self.n_clusters = n_clusters
        self.gamma = gamma
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        self.kmeans_ = KMeans(self.n_clusters, n_init=10, random_state=self.random_state)
        self.kmeans_.fit(X, sample_weight=sample_weight)
        return self

    def transform(self, X):
        return rbf_kernel(X, self.kmeans_.cluster_centers_, gamma=self.gamma)

    def get_feature_names_out(self, names=None):
        return [f"Cluster {i} similarity" for i in range(self.n_clusters)]
""",
    """
cluster_simil = ClusterSimilarity(n_clusters=10, gamma=1., random_state=42)
similarities = cluster_simil.fit_transform(housing[["latitude", "longitude"]],
                                           sample_weight=housing_labels)
similarities[:3].round(2)
""",
    """
housing_renamed = housing.copy()
housing_renamed["Max cluster similarity"] = similarities.max(axis=1)
housing_renamed.plot(kind="scatter", x="longitude", y="latitude", grid=True,
                     c="Max cluster similarity", cmap="jet", colorbar=True, figsize=(10, 7))
plt.plot(cluster_simil.kmeans_.cluster_centers_[:, 1], cluster_simil.kmeans_.cluster_centers_[:, 0],
         linestyle="", color="black", marker="X", markersize=12)
save_fig("district_cluster_plot")
plt.show()
""",
    """
from sklearn.pipeline import Pipeline, make_pipeline

num_pipeline = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
num_pipeline
""",
    """
housing_num_prepared = num_pipeline.fit_transform(housing_num)
housing_num_prepared[:2].round(2)
""",
    """
from sklearn.compose import ColumnTransformer, make_column_selector

cat_pipeline = make_pipeline(SimpleImputer(strategy="most_frequent"),
                             OneHotEncoder(handle_unknown="ignore"))

def column_ratio(X):
    return X[:, [0]] / X[:, [1]]

def ratio_name(function_transformer, feature_names_in):
    return ["ratio"]

def ratio_pipeline():
    return make_pipeline(SimpleImputer(strategy="median"),
                         FunctionTransformer(column_ratio, feature_names_out=ratio_name),
                         StandardScaler())
""",
    """
log_pipeline = make_pipeline(SimpleImputer(strategy="median"),
                             FunctionTransformer(np.log, feature_names_out="one-to-one"),
                             StandardScaler())
cluster_simil = ClusterSimilarity(n_clusters=10, gamma=1., random_state=42)
preprocessing = ColumnTransformer([
    ("bedrooms", ratio_pipeline(), ["total_bedrooms", "total_rooms"]),
    ("rooms_per_house", ratio_pipeline(), ["total_rooms", "households"]),
    ("people_per_house", ratio_pipeline(), ["population", "households"]),
    ("log", log_pipeline, ["total_bedrooms", "total_rooms", "population", "households",
                           "median_income"]),
    ("geo", cluster_simil, ["latitude", "longitude"]),
    ("cat", cat_pipeline, make_column_selector(dtype_exclude="number")),
], remainder=num_pipeline)
""",
    "housing_prepared = preprocessing.fit_transform(housing)\nhousing_prepared.shape",
    "preprocessing.get_feature_names_out()",
)
CELLS = (*_LOOK, *_PREPARE, *exploring_models.CELLS)
