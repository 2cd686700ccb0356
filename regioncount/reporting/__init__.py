"""Reports of sweeps: statistics, tables, figures and pages from what is on disk, without torch; and trackers."""
