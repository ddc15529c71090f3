"""What happens to the data: read, decode, map, shard, batch, deliver, account."""
