"""Results of boards: reports of `perceiver-run selftest`, checked, put beside the forecasts, and kept."""
