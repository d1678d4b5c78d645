"""Peers that one compares with: feature matching with a depth map or a known distance."""
