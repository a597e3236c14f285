"""`restora serve`: jobs, a bounded queue with one worker, the HTTP API and the page.

It uses photos and restorers, but nothing of training. FastAPI and uvicorn come with `restora[serve]`.
"""
