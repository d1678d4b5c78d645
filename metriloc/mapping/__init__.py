"""Photos in, a map out: a COLMAP model that ``localize`` opens at once, in metres where something tells them.

| file | what |
|---|---|
| ``photos`` | which files are photos, their cameras, and what stands in EXIF of where they were taken |
| ``features`` | keypoints of each photo, one file a photo |
| ``pairs``, ``matching`` | which photos may show the same, and their matches, one file a photo |
| ``prepare``, ``sharing`` | all before the model, by this process alone or shared with Ray workers or torchrun |
| ``native`` | the process that runs COLMAP: SIFT, verification, the ``mappers``; ``child`` starts it and hears it |
| ``build`` | from one to the next, each stage kept; ``places``, ``model_files``: folders and models put there whole |
| ``readings``, ``scale`` | what tells metres, and the one scale that follows |
| ``facts`` | ``map.json`` beside the model: where the photos are, how it was made, its scale |
| ``check``, ``doppelgangers`` | what is weak in a map, and places in it that look alike |
| ``export``, ``gltf`` | the map for other programs |
"""
