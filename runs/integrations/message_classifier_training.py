"""Trains the message classifier on the shipped messages, and measures it on those it has not seen."""

import csv
import fcntl
import hashlib
import io
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from runs.integrations.message_classifier import (
    DATA,
    OTHER,
    ClassifierMissing,
    MessageClassifier,
    card_file,
    data_hash,
    load,
    model_card,
    model_file,
    model_version,
)

STAGES = ("reading messages", "counting words", "counting letters", "fitting", "measuring", "saving")
SURE = 0.9  # the confidence that the model card reports coverage and accuracy for

Report = Callable[[str], None]


class Example(NamedTuple):
    text: str
    queue: str


def ensure(report: Report = lambda stage: None, *, force: bool = False) -> dict[str, Any]:
    """Return the card of the trained classifier; train first where there is none, one process at a time."""
    if not force and is_trained():
        return model_card()
    with _only_one(report):
        if force or not is_trained():  # another process may have trained it while this one waited
            _train(report)
    load.cache_clear()
    return model_card()


def is_trained() -> bool:
    try:
        return bool(model_card()["sha256"] == _sha256(model_file().read_bytes()))
    except (ClassifierMissing, FileNotFoundError):
        return False


def held_out() -> list[Example]:
    """The test messages that do not occur in training, however written: 6 of BANKING77's do."""
    trained_on = {_plain(example.text) for example in training()}
    return [example for example in messages("test") if _plain(example.text) not in trained_on]


def drawn(examples: list[Example], limit: int | None, *, seed: int) -> list[Example]:
    """So many examples at random, the same ones for the same seed; all of them without a limit."""
    if limit is None or limit >= len(examples):
        return examples
    return random.Random(seed).sample(examples, limit)  # noqa: S311 - a sample, not a secret


def messages(part: str) -> list[Example]:
    """BANKING77's messages of a part (train or test), each with its queue."""
    queues = json.loads((DATA / "banking77/queues.json").read_text())
    queue_of = {intent: queue for queue, about in queues.items() for intent in about["intents"]}
    return [Example(row["text"], queue_of[row["category"]]) for row in _rows(f"banking77/{part}.csv")]


def training() -> list[Example]:
    return messages("train") + strangers("train")


def strangers(part: str) -> list[Example]:
    """CLINC150's queries that are none of the card desk's business."""
    return [Example(row["text"], OTHER) for row in _rows(f"clinc150/{part}.csv")]


def measure(classifier: MessageClassifier, examples: list[Example]) -> dict[str, Any]:
    """Accuracy, calibration error, and what would pass without a person at the confidence SURE."""
    from sklearn.metrics import roc_auc_score

    found = classifier.predict_many([example.text for example in examples])
    right = [prediction.queue == example.queue for prediction, example in zip(found, examples, strict=True)]
    confidences = [prediction.confidence for prediction in found]
    sure = [is_right for is_right, confidence in zip(right, confidences, strict=True) if confidence >= SURE]
    return {
        "messages": len(examples),
        "accuracy": round(sum(right) / len(right), 4),
        "ece": round(calibration_error(right, confidences), 4),
        "auroc": round(float(roc_auc_score(right, confidences)), 4),
        "share_sure": round(len(sure) / len(right), 4),
        "accuracy_sure": round(sum(sure) / len(sure), 4),
    }


def calibration_error(right: list[bool], confidences: list[float], bins: int = 10) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, over bins of equal width."""
    gaps = [0.0] * bins
    for is_right, confidence in zip(right, confidences, strict=True):
        gaps[min(int(confidence * bins), bins - 1)] += confidence - is_right
    return sum(abs(gap) for gap in gaps) / len(right)


def _train(report: Report) -> None:
    started = time.monotonic()
    classifier = _fitted(report)
    report("measuring")
    metrics = measure(classifier, held_out())
    unknown = classifier.predict_many([example.text for example in strangers("test")])
    metrics["other_found"] = round(sum(one.queue == OTHER for one in unknown) / len(unknown), 4)
    metrics["other_missed_sure"] = round(sum(one.queue != OTHER and one.confidence >= SURE for one in unknown) / len(unknown), 4)
    report("saving")
    _save(classifier, metrics=metrics, seconds=round(time.monotonic() - started, 1))


def _fitted(report: Report) -> MessageClassifier:
    report("reading messages")
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    examples = training()
    texts = [example.text for example in examples]
    report("counting words")
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    word_features = words.fit_transform(texts)
    report("counting letters")
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    letter_features = letters.fit_transform(texts)
    report("fitting")
    regression = LogisticRegression(C=20, max_iter=1000)
    # One thread: on a busy machine the threads of the linear algebra wait for one another, up to ten times as long.
    with threadpool_limits(1):
        regression.fit(hstack([word_features, letter_features]).tocsr(), [example.queue for example in examples])
    return MessageClassifier(model_version(), words, letters, regression)


def _save(classifier: MessageClassifier, *, metrics: dict[str, Any], seconds: float) -> None:
    import joblib

    parts = {"words": classifier.words, "letters": classifier.letters, "regression": classifier.regression}
    buffer = io.BytesIO()
    joblib.dump(parts, buffer, compress=3)
    card = {
        "version": classifier.version,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
        "data_hash": data_hash(),
        "sha256": _sha256(buffer.getvalue()),
        "metrics": metrics,
    }
    _write(model_file(), buffer.getvalue())
    _write(card_file(), json.dumps(card, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, also when the machine stops in between."""
    draft = path.with_suffix(".part")  # one process at a time is here: it holds the lock
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def _only_one(report: Report) -> Iterator[None]:
    folder = model_file().parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "training.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that trains it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
