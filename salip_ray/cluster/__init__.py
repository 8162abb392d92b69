"""The Ray cluster a job runs on: sessions, resources, sizing and submission."""
