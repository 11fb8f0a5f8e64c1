"""Pictures: from bytes that anyone may have written to pixels, the same for cleaning and for serving."""
