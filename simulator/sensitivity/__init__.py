"""Which worker would you speed up? Change a weight, simulate again, and see by how much the answer comes earlier.

`what_if` changes a graph, `sensitivity` ranks all threads by what their speed-up saves, `path_change` says where the
realised critical path went, and `slack_table` is the closed form: no machine, only longest paths.
"""

from simulator.sensitivity.changes import what_if
from simulator.sensitivity.paths import PathChange, path_change
from simulator.sensitivity.ranking import Sensitivity, SpeedUp, sensitivity
from simulator.sensitivity.slack import Slack, slack_table

__all__ = ["PathChange", "Sensitivity", "Slack", "SpeedUp", "path_change", "sensitivity", "slack_table", "what_if"]
