"""One query and several references: a pose from each pair, brought together by what each is sure of.

Every reference says how the query is turned, in which direction it lies and, by its metres, how far. Two references
whose poses contradict each other cannot both be right, so the largest set without a contradiction is taken, and the rest
is named. Where the references know their own poses, directions alone fix the position; else poses among them are
estimated from their photos, too.
"""

from metriloc.fusion.many import FromMany, relative_pose_many
from metriloc.fusion.pairs import FusedPairs, motion_of

__all__ = ["FromMany", "FusedPairs", "motion_of", "relative_pose_many"]
