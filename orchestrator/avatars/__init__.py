"""Avatars: detection, landmarks, boxes, masks, preparation, store."""
