"""`restora serve`: jobs, a bounded queue with one worker, the HTTP API and the page.

Knows photos and restorers; nothing here knows training. FastAPI and uvicorn come with `restora[serve]`.
"""
