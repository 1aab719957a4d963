"""The service: replies, speech, avatars, inference, rendering, APIs."""
