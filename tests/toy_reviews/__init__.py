"""A TFDS dataset of three reviews. TFDS wants a builder to live in a package."""

from toy_reviews.toy_reviews_dataset_builder import ToyReviews

__all__ = ["ToyReviews"]
