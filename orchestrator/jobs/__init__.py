"""Videos made in the background, which survive the process that makes them."""
