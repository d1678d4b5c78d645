"""Published networks, one file each. A dense backbone has ``stride``, ``channels`` and maps images to feature maps."""
