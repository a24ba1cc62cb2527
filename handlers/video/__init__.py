"""The video: bytes -> packets -> frames -> views, as the documented recipe picks and transforms them."""
