"""Sorts a customer's message into one of the desk's queues, with a probability that was checked on held-out messages."""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.conf import settings

from runs.engine.errors import AskHuman

DATA = Path(__file__).resolve().parent.parent / "data"
SOURCES = ("banking77/queues.json", "banking77/train.csv", "banking77/test.csv", "clinc150/train.csv", "clinc150/test.csv")
CODE_VERSION = "1"  # raise it when training changes: every machine then trains anew
ALTERNATIVES = 3
OTHER = "other"  # not the card desk's business


class ClassifierMissing(AskHuman):
    """No classifier for this code and data has been trained on this machine."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest queue; confidence is its probability, alternatives are the likeliest queues with theirs."""

    queue: str
    confidence: float
    alternatives: dict[str, float]
    source: str


@dataclass(frozen=True)
class MessageClassifier:
    """TF-IDF over words and over letters, then logistic regression; made by message_classifier_training."""

    version: str
    words: Any
    letters: Any
    regression: Any

    def predict(self, message: str) -> Prediction:
        return self.predict_many([message])[0]

    def predict_many(self, messages: list[str]) -> list[Prediction]:
        from scipy.sparse import hstack

        features = hstack([self.words.transform(messages), self.letters.transform(messages)]).tocsr()
        return [self._prediction(row) for row in self.regression.predict_proba(features)]

    def _prediction(self, probabilities: Any) -> Prediction:
        ranked = sorted(zip(probabilities, self.regression.classes_, strict=True), reverse=True)[:ALTERNATIVES]
        alternatives = {str(queue): float(probability) for probability, queue in ranked}
        queue, confidence = next(iter(alternatives.items()))
        return Prediction(queue, confidence, alternatives, f"classifier {self.version}")


@cache
def load() -> MessageClassifier:
    """The classifier for this code and data, read once in each process."""
    card = model_card()
    content = model_file().read_bytes()
    # joblib unpickles, and a pickle can run code: only the very bytes that our own training recorded are read.
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise ClassifierMissing(f"{model_file()} is not the file that was trained. Run `python manage.py train --force`.")
    import joblib

    parts = joblib.load(io.BytesIO(content))
    return MessageClassifier(card["version"], parts["words"], parts["letters"], parts["regression"])


def model_card() -> dict[str, Any]:
    """What is known of the trained classifier: version, data, metrics, the hash of its file."""
    try:
        card: dict[str, Any] = json.loads(card_file().read_text())
    except FileNotFoundError as error:
        raise ClassifierMissing(
            f"There is no trained message classifier in {card_file().parent}. Run `python manage.py train` (about 20 s)."
        ) from error
    return card


def model_version() -> str:
    """Changes with the data, with the training code and with scikit-learn, whose pickles do not outlive a release."""
    digest = hashlib.sha256(f"{CODE_VERSION} {version('scikit-learn')} {data_hash()}".encode())
    return f"{CODE_VERSION}-{digest.hexdigest()[:8]}"


@cache
def data_hash() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((DATA / name).read_bytes())
    return digest.hexdigest()


def model_file() -> Path:
    return Path(settings.MODEL_CACHE) / f"message-classifier-{model_version()}.joblib"


def card_file() -> Path:
    """Written last, so that a card always has its model beside it."""
    return model_file().with_suffix(".json")
