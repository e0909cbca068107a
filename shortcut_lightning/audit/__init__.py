"""Was this picture used to train this model? What is concluded from what `membership` measures."""
