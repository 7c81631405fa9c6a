"""Files of a library into folders by genre: names, the plan, and carrying it out so that it can be undone."""
