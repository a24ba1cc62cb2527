"""The commands `video-predict` and `video-models`, and the flags with which commands find a server."""
