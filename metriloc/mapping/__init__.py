"""Photos in, a map out: a COLMAP model that ``localize`` opens at once, in metres where something tells them.

| file | what |
|---|---|
| ``photos`` | which files are photos, their cameras, and what stands in EXIF of where they were taken |
| ``features`` | keypoints of each photo, one file a photo |
| ``pairs``, ``matching`` | which photos may show the same, and their matches, one file a photo |
| ``native`` | the process that runs COLMAP: verification, incremental mapper; ``child`` starts it and hears it |
| ``build`` | from one to the next, each stage kept |
| ``readings``, ``scale`` | what tells metres, and the one scale that follows |
| ``facts`` | ``map.json`` beside the model: where the photos are, how it was made, its scale |
| ``check``, ``export`` | what is weak in a map, and the map for other programs |
"""
