"""Where the stages run: the image lock, one folder per image, and `run.py`, which starts a stage in a container."""
