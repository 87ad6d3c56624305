"""Where the pages of reviews live."""

from django.urls import path

from reviews import views

urlpatterns = [
    path("reviews/", views.inbox_page, name="inbox"),
    path("reviews/list/", views.review_list, name="review_list"),
    path("reviews/count/", views.review_count, name="review_count"),
    path("reviews/<int:review_id>/", views.review_page, name="review"),
    path("reviews/<int:review_id>/news/", views.review_news, name="review_news"),
    path("reviews/<int:review_id>/decision/", views.decide_review, name="decide_review"),
    path("reviews/<int:review_id>/claim/", views.claim_review, name="claim_review"),
    path("reviews/<int:review_id>/claim/release/", views.release_review, name="release_review"),
]
