"""The work of `restora restore`: what to do, how, and the files that come of it."""
