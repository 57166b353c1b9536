"""The agent side: an RQ worker whose jobs run LangChain agents and append what they do to the event log."""
