"""The full data sets that the shipped models are trained on, and the samples of them that the package ships."""
