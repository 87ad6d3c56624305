"""Goes along when retention removes runs: a bulk decision of which nothing is left, and where links to reviews lead then."""

from typing import Any

from django.db.models import Exists, OuterRef
from django.dispatch import receiver

from reviews.models import BulkDecision, BulkItem, RemovedReview, Review
from runs import signals


@receiver(signals.removing)
def forget(run_ids: list[int], **kwargs: Any) -> None:
    """Its items are deleted with their reviews; without any, its page would have nothing to say."""
    concerned = BulkDecision.objects.filter(Exists(BulkItem.objects.filter(bulk=OuterRef("pk"), review__run__in=run_ids)))
    of_run = Review.objects.filter(run__in=run_ids).values_list("pk", "run")
    RemovedReview.objects.bulk_create([RemovedReview(pk=review_id, run_id=run_id) for review_id, run_id in of_run.iterator()])
    ids = [bulk.pk for bulk in concerned.order_by("pk").select_for_update()]  # another pruning may remove its other items
    others = BulkItem.objects.filter(bulk=OuterRef("pk")).exclude(review__run__in=run_ids)
    BulkDecision.objects.filter(~Exists(others), pk__in=ids).delete()
