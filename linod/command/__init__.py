"""What `manage.py linod` does, a module for each thing. Faces: they use site and daemon, neither uses them."""
