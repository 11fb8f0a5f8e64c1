from tests.images_home import images

__all__ = ["images"]
