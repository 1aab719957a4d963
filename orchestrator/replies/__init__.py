"""What the avatar says: text, cut into sentences."""
