"""What a person or a program sees of a run: `Run`, `StepView`, `VariableView`.

Views read the run's journal, so they are right at any moment, also while the run goes on. They load
nothing until asked: only `VariableView.load` unpickles, and only from a store that the user trusts.
"""

from cellrail.views.runs import ChildView, ItemView, Run, RunList
from cellrail.views.steps import StepView, TurnView, first_line, status_words
from cellrail.views.variables import VariableView

__all__ = [
    "ChildView",
    "ItemView",
    "Run",
    "RunList",
    "StepView",
    "TurnView",
    "VariableView",
    "first_line",
    "status_words",
]
