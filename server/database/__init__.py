"""What a server keeps: jobs and their history, events, webhooks and API keys, in SQLite or PostgreSQL.

database = await Database.open(folder / "jobs.sqlite3")
queue, history = JobQueue(database), JobHistory(database)
"""
