"""Where metrics, results and rollouts go besides the run directory, one file a tracker.

Entrance: `vold.report.trackers.tracking`. A tracker is a file of this folder with a function `open_tracker`.
"""
