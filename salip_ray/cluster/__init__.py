"""The Ray cluster a job runs on: sessions, resources, submission and checks."""
