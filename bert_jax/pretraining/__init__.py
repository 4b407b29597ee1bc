"""Pre-trains: draws pairs of sentences from a corpus, packs and masks them, and runs from text to a model."""
