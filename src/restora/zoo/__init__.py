"""Models that come with restora, trained by its own recipes on freely licensed photographs."""
