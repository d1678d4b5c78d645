"""Errors, benchmark scores, submissions, calibration and reports."""
