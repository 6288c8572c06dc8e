"""The client: blocking and asyncio."""
