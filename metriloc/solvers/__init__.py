"""Estimators that know no network: alignment of point sets, consensus, absolute and relative pose, refinement."""
