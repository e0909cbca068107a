"""What lies on disk: pictures, captions, and results kept between runs."""
