"""Running a flow: the engine behind papermill, its kernel side, and what they say to each other."""
