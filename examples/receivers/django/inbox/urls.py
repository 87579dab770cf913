from django.urls import path

from inbox import views

urlpatterns = [path("webhooks", views.receive)]
