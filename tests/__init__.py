import pytest

# A failed assert there shows its values, as one in a test does.
pytest.register_assert_rewrite("tests.support")
