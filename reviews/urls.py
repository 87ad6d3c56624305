"""Where the pages of reviews live."""

from django.urls import path

from reviews.views import assignments, bulk, claims, context, decision, history, inbox, notices, numbers, review, saved

urlpatterns = [
    path("reviews/", inbox.inbox_page, name="inbox"),
    path("reviews/list/", inbox.review_list, name="review_list"),
    path("reviews/rows/", inbox.review_rows, name="review_rows"),
    path("reviews/views/", saved.saved_views, name="saved_views"),
    path("reviews/views/<int:view_id>/", saved.change_view, name="change_view"),
    path("reviews/views/<int:view_id>/delete/", saved.delete_view, name="delete_view"),
    path("reviews/history/", history.decision_list, name="decisions"),
    path("reviews/history/export.<slug:form>", history.export_decisions, name="export_decisions"),
    path("reviews/export.<slug:form>", history.export_reviews, name="export_reviews"),
    path("reviews/count/", inbox.review_count, name="review_count"),
    path("reviews/next/", claims.next_review, name="next_review"),
    path("reviews/numbers/", numbers.numbers_page, name="numbers"),
    path("reviews/keys/", context.set_keys, name="review_keys"),
    path("reviews/bulk/", bulk.bulk_preview, name="bulk_preview"),
    path("reviews/bulk/decision/", bulk.decide_bulk, name="decide_bulk"),
    path("reviews/bulk/<uuid:bulk_id>/", bulk.bulk_result, name="bulk_result"),
    path("reviews/bulk/<uuid:bulk_id>/continue/", bulk.continue_bulk, name="continue_bulk"),
    path("reviews/bulk/<uuid:bulk_id>/undo/", bulk.undo_bulk, name="undo_bulk"),
    path("reviews/<int:review_id>/", review.review_page, name="review"),
    path("reviews/<int:review_id>/steps/", context.review_steps, name="review_steps"),
    path("reviews/<int:review_id>/diff/", context.review_diff, name="review_diff"),
    path("reviews/<int:review_id>/news/", review.review_news, name="review_news"),
    path("reviews/<int:review_id>/decision/", decision.decide_review, name="decide_review"),
    path("reviews/<int:review_id>/undo/", decision.undo_review, name="undo_review"),
    path("reviews/<int:review_id>/draft/", decision.draft_review, name="draft_review"),
    path("reviews/<int:review_id>/claim/", claims.claim_review, name="claim_review"),
    path("reviews/<int:review_id>/claim/release/", claims.release_review, name="release_review"),
    path("reviews/<int:review_id>/here/", claims.here, name="review_here"),
    path("reviews/<int:review_id>/take-over/", assignments.take_over_review, name="take_over_review"),
    path("reviews/<int:review_id>/reassign/", assignments.reassign_review, name="reassign_review"),
    path("reviews/<int:review_id>/snooze/", assignments.snooze_review, name="snooze_review"),
    path("reviews/<int:review_id>/wake/", assignments.wake_review, name="wake_review"),
    path("notices/", notices.notice_list, name="notices"),
    path("notices/bell/", notices.bell, name="bell"),
    path("notices/read/", notices.read_notices, name="read_notices"),
    path("notices/settings/", notices.notice_settings, name="notice_settings"),
]
