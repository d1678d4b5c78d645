"""Streams of photos: a folder, a video file, a ROS bag, a dump of a phone, JPEGs on standard input.

| file | what lives there |
|---|---|
| ``source`` | whatever SOURCE names, opened: the form is told from the files |
| ``frames`` | a frame of a stream, and a stream; ``notes``: what was wrong and survived |
| ``views`` | pixels and what is known of their camera -> a ``View`` |
| ``folder``, ``video``, ``bag``, ``jpegs`` | the four kinds of sources |
| ``phones``, ``datasets`` | forms with cameras and device poses: Stray Scanner, Record3D; EuRoC, TUM, KITTI, ... |
| ``device_poses``, ``pose_files`` | poses that a device told, matched to frames; the files they come in |
| ``transforms`` | frames of a robot and the transforms between them (TF) |
| ``child``, ``native``, ``native_video``, ``native_bag`` | compiled decoders in a process of their own |
| ``pace`` | frames at the speed of their time stamps, dropped when the machine is slower |

Nothing is imported here: the process that runs decoders imports this package without torch.
"""
