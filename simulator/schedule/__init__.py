"""In which order do microbatches run on a stage? A schedule is a list of actions per device."""
