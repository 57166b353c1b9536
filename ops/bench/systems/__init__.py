"""The servers that Tailrace is compared with. Each is a program: PORT MONGODB_URL DATABASE REDIS_URL."""
