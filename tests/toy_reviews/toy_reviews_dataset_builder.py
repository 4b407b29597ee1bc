"""The builder of the toy dataset."""

import tensorflow_datasets as tfds

TEXTS = ["A fine film.<br /><br />I liked it.", "Dull, dull, dull.", "Ein schöner Film über Käse."]


class ToyReviews(tfds.core.GeneratorBasedBuilder):
    """Three reviews with labels, and a fourth that is not UTF-8 in a split of its own."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"body": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
        )
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(TEXTS), "broken": self._generate_examples([b"caf\xe9"])}

    def _generate_examples(self, texts):
        for number, text in enumerate(texts):
            yield number, {"body": text, "label": number % 2}
