"""Query expansion: the schema of rows and lines, the reward that scores them, the data that teaches, the model that writes them."""
