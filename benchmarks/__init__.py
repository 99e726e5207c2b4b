"""What ``make bench`` and ``make proof`` run. Figures are taken in one run, side by side, so that they can be compared."""
