"""The last cells of the housing notebook: fit models, search, look at the best one, store it."""

from __future__ import annotations

CELLS = (
    """
lin_reg = make_pipeline(preprocessing, LinearRegression())
lin_reg.fit(housing, housing_labels)
""",
    """
housing_predictions = lin_reg.predict(housing)
housing_predictions[:5].round(-2)
""",
    "housing_labels.iloc[:5].values",
    """
from sklearn.metrics import root_mean_squared_error

lin_rmse = root_mean_squared_error(housing_labels, housing_predictions)
lin_rmse
""",
    """
from sklearn.tree import DecisionTreeRegressor

tree_reg = make_pipeline(preprocessing, DecisionTreeRegressor(random_state=42))
tree_reg.fit(housing, housing_labels)
tree_rmse = root_mean_squared_error(housing_labels, tree_reg.predict(housing))
tree_rmse
""",
    """
from sklearn.model_selection import cross_val_score

tree_rmses = -cross_val_score(tree_reg, housing, housing_labels,
                              scoring="neg_root_mean_squared_error", cv=5)
pd.Series(tree_rmses).describe()
""",
    """
from sklearn.ensemble import RandomForestRegressor

forest_reg = make_pipeline(preprocessing, RandomForestRegressor(n_estimators=30, random_state=42))
forest_reg.fit(housing, housing_labels)
""",
    """
forest_rmses = -cross_val_score(forest_reg, housing, housing_labels,
                                scoring="neg_root_mean_squared_error", cv=3)
pd.Series(forest_rmses).describe()
""",
    """
from sklearn.model_selection import GridSearchCV

full_pipeline = Pipeline([
    ("preprocessing", preprocessing),
    ("random_forest", RandomForestRegressor(n_estimators=15, random_state=42)),
])
param_grid = [{"preprocessing__geo__n_clusters": [5, 8], "random_forest__max_features": [4, 6]}]
grid_search = GridSearchCV(full_pipeline, param_grid, cv=3,
                           scoring="neg_root_mean_squared_error")
grid_search.fit(housing, housing_labels)
grid_search.best_params_
""",
    """
cv_res = pd.DataFrame(grid_search.cv_results_)
cv_res = cv_res.sort_values(by="mean_test_score", ascending=False)
cv_res[["params", "mean_test_score", "rank_test_score"]].head()
""",
    """
from scipy.stats import randint
from sklearn.model_selection import RandomizedSearchCV

param_distribs = {"preprocessing__geo__n_clusters": randint(low=3, high=20),
                  "random_forest__max_features": randint(low=2, high=15)}
rnd_search = RandomizedSearchCV(full_pipeline, param_distributions=param_distribs, n_iter=4, cv=3,
                                scoring="neg_root_mean_squared_error", random_state=42)
rnd_search.fit(housing, housing_labels)
""",
    """
final_model = rnd_search.best_estimator_
feature_importances = final_model["random_forest"].feature_importances_
feature_importances.round(2)
""",
    """
sorted(zip(feature_importances, final_model["preprocessing"].get_feature_names_out()),
       reverse=True)[:8]
""",
    """
X_test = strat_test_set.drop("median_house_value", axis=1)
y_test = strat_test_set["median_house_value"].copy()
final_predictions = final_model.predict(X_test)
final_rmse = root_mean_squared_error(y_test, final_predictions)
print(final_rmse)
""",
    """
from scipy import stats

confidence = 0.95
squared_errors = (final_predictions - y_test) ** 2
np.sqrt(stats.t.interval(confidence, len(squared_errors) - 1, loc=squared_errors.mean(),
                         scale=stats.sem(squared_errors)))
""",
    'import joblib\n\njoblib.dump(final_model, "my_model.pkl")',
    """
final_model_reloaded = joblib.load("my_model.pkl")
new_data = housing.iloc[:5]
predictions = final_model_reloaded.predict(new_data)
predictions
""",
    "np.allclose(predictions, final_model.predict(new_data))",
)
